//! Batches: how they are formed, and what becomes of each message in one.

use std::sync::Arc;
use std::time::Duration;

use interline::prelude::*;
use tokio::time::Instant;

use crate::probe::Probe;
use crate::work::{Made, Work};
use crate::world::{Outcome as Ending, World, cases};

cases![
    a_batch_is_full_or_old_enough,
    a_batch_that_fails_as_a_whole_is_tried_again_as_a_whole,
    each_message_of_a_batch_has_its_own_fate,
];

#[subscriber(
    group = "many",
    batch(max = 5, wait = "1s"),
    concurrency = 1,
    retry(attempts = 3, first = "100ms")
)]
async fn many(many: Batch<Work>, out: Out<Made>, probe: State<Probe>) -> BatchOutcome {
    let ids: Vec<String> = many
        .iter()
        .map(|item| format!("{}#{}", item.payload().id, item.incoming().attempt))
        .collect();
    probe.note(ids.join(" "));
    let mut outcome = many.all_done();
    for (at, item) in many.iter().enumerate() {
        match &*item.act {
            "once" if item.incoming().attempt == 1 => outcome.set(at, Outcome::retry("once")),
            "always" => outcome.set(at, Outcome::retry("always")),
            "never" => outcome.set(at, Outcome::dead_letter("never")),
            "drop" => outcome.set(at, Outcome::discard("not needed")),
            "send" => out.send(Made::new(&item.id, "sent")).expect("valid"),
            _ => {}
        }
    }
    outcome
}

async fn a_batch_is_full_or_old_enough(world: Arc<World>) -> Ending {
    let probe = Probe::new();
    let setup = world.app("1").register::<many>().state(probe.clone());
    let process = setup.start().await;
    process.running.pause("many").await?;
    for at in 0..12 {
        process.publish(&Work::new(&at.to_string(), "")).await;
    }
    process.running.resume("many").await?;
    let mut sizes = Vec::new();
    let mut all = Vec::new();
    while all.len() < 12 {
        let batch = probe.next().await;
        let ids: Vec<String> = batch.split(' ').map(str::to_owned).collect();
        sizes.push(ids.len());
        all.extend(ids);
    }
    assert!(sizes.iter().all(|size| *size <= 5), "{sizes:?}");
    assert!(sizes.contains(&5), "never full: {sizes:?}");
    let expected: Vec<String> = (0..12).map(|at| format!("{at}#1")).collect();
    all.sort_by_key(|id| id.trim_end_matches("#1").parse::<u32>().expect("a number"));
    assert_eq!(all, expected);

    let begun = Instant::now();
    process.publish(&Work::new("alone", "")).await;
    probe.expect("alone#1").await;
    let waited = begun.elapsed();
    assert!(waited >= Duration::from_millis(990), "{waited:?}");
    process.stop().await;
    world.until_left("many", "work", 0).await;
    Ok(())
}

async fn each_message_of_a_batch_has_its_own_fate(world: Arc<World>) -> Ending {
    let probe = Probe::new();
    let mut made = world.listen("made").await?;
    let setup = world.app("1").register::<many>().state(probe.clone());
    let setup = setup.set("subscribers.many.batch.max", 7);
    let process = setup.start().await;
    process.running.pause("many").await?;
    for act in ["done", "once", "never", "always", "drop", "send"] {
        process.publish(&Work::new(act, act)).await;
    }
    world.publish_json("work", "unreadable").await;
    process.running.resume("many").await?;
    let mut first = Vec::new();
    // Where they come from several places, they need not come at once.
    while first.len() < 6 {
        first.extend(probe.next().await.split(' ').map(str::to_owned));
    }
    first.sort();
    assert_eq!(
        first,
        [
            "always#1", "done#1", "drop#1", "never#1", "once#1", "send#1"
        ]
    );
    let mut again: Vec<String> = Vec::new();
    while again.len() < 3 {
        again.extend(probe.next().await.split(' ').map(str::to_owned));
    }
    again.sort();
    assert_eq!(again, ["always#2", "always#3", "once#2"]);
    let mut reasons: Vec<_> = world
        .dead("many", "work", 3)
        .await
        .iter()
        .map(|letter| {
            let id = letter.header("message-id");
            let (reason, attempts) = (
                letter.header("x-dlq-reason"),
                letter.header("x-dlq-attempts"),
            );
            match &*reason {
                "decode" => reason,
                _ => format!("{reason} {id} {attempts}"),
            }
        })
        .collect();
    reasons.sort();
    assert_eq!(
        reasons,
        ["decode", "rejected never 1", "retries_exhausted always 3"]
    );
    let sent = made.next().await;
    assert_eq!(
        serde_json::from_slice::<Made>(&sent.body)?,
        Made::new("send", "sent")
    );
    made.quiet().await;
    probe.quiet().await;
    process.stop().await;
    world.until_left("many", "work", 0).await;
    Ok(())
}

#[subscriber(
    group = "whole",
    // Never so long: every batch of the case is full.
    batch(max = 3, wait = "10s"),
    concurrency = 1,
    timeout = "1s",
    retry(attempts = 2, first = "100ms")
)]
async fn whole(many: Batch<Work>, probe: State<Probe>) -> Result<(), AnyError> {
    let mut ids: Vec<String> = many
        .iter()
        .map(|item| format!("{}#{}", item.payload().id, item.incoming().attempt))
        .collect();
    ids.sort();
    probe.note(ids.join(" "));
    match &*many.iter().next().expect("one at least").act {
        "panic" => panic!("on purpose"),
        "hang" => std::future::pending().await,
        _ => Err("all of it".into()),
    }
}

type AnyError = Box<dyn std::error::Error + Send + Sync>;

async fn a_batch_that_fails_as_a_whole_is_tried_again_as_a_whole(world: Arc<World>) -> Ending {
    let probe = Probe::new();
    let setup = world.app("1").register::<whole>().state(probe.clone());
    let process = setup.start().await;
    for (act, reason) in [
        ("error", "retries_exhausted"),
        ("panic", "panic"),
        ("hang", "timeout"),
    ] {
        process.running.pause("whole").await?;
        for at in 0..3 {
            process
                .publish(&Work::new(&format!("{act}{at}"), act))
                .await;
        }
        process.running.resume("whole").await?;
        for attempt in [1, 2] {
            let all = [0, 1, 2].map(|at| format!("{act}{at}#{attempt}"));
            probe.expect(&all.join(" ")).await;
        }
        for letter in world.dead("whole", "work", 3).await {
            assert_eq!(letter.header("x-dlq-reason"), reason);
            assert_eq!(letter.header("x-dlq-attempts"), "2");
        }
    }
    probe.quiet().await;
    process.stop().await;
    Ok(())
}
