//! Repeated attempts: how many, after which wait, and what is seen of them.

use std::sync::Arc;
use std::time::Duration;

use interline::prelude::*;
use tokio::time::Instant;

use crate::probe::Probe;
use crate::work::Work;
use crate::world::{Outcome as Ending, World, cases};

cases![
    a_long_wait_is_a_rung_of_the_ladder,
    a_retry_comes_to_its_own_subscription_only,
    a_short_wait_does_not_wait_behind_a_long_one,
    attempts_are_counted_and_end_as_a_dead_letter,
    every_attempt_sees_the_message_as_it_was,
];

/// What a wait may take on top.
const SLACK: Duration = Duration::from_secs(2);

fn seconds(count: f64) -> Duration {
    Duration::from_secs_f64(count)
}

/// Fails until its attempts are used up.
#[subscriber(group = "always", retry(attempts = 4, first = "100ms", factor = 2.0))]
async fn always(work: Work, meta: Meta, probe: State<Probe>) -> Result<(), AnyError> {
    probe.note(format!("{} #{}", work.id, meta.attempt()));
    Err("no".into())
}

type AnyError = Box<dyn std::error::Error + Send + Sync>;

async fn attempts_are_counted_and_end_as_a_dead_letter(world: Arc<World>) -> Ending {
    let probe = Probe::new();
    let setup = world.app("1").register::<always>().state(probe.clone());
    let process = setup.start().await;
    let begun = Instant::now();
    process.publish(&Work::new("w", "")).await;
    assert_eq!(probe.take(4).await, ["w #1", "w #2", "w #3", "w #4"]);
    // 100, 200 and 400 ms, each with up to a fifth less.
    let took = begun.elapsed();
    assert!(
        (seconds(0.56)..seconds(0.7) + SLACK).contains(&took),
        "{took:?}"
    );
    let letter = world.dead("always", "work", 1).await.remove(0);
    assert_eq!(letter.header("x-dlq-reason"), "retries_exhausted");
    assert_eq!(letter.header("x-dlq-attempts"), "4");
    assert_eq!(letter.header("x-dlq-error"), "no");
    probe.quiet().await;

    // The configuration has the last word.
    process.stop().await;
    let setup = world.app("2").register::<always>().state(probe.clone());
    let setup = setup.set("subscribers.always.retry.attempts", 2);
    let process = setup.start().await;
    process.publish(&Work::new("v", "")).await;
    assert_eq!(probe.take(2).await, ["v #1", "v #2"]);
    let letter = world.dead("always", "work", 1).await.remove(0);
    assert_eq!(letter.header("x-dlq-attempts"), "2");
    probe.quiet().await;
    process.stop().await;
    Ok(())
}

async fn a_long_wait_is_a_rung_of_the_ladder(world: Arc<World>) -> Ending {
    let probe = Probe::new();
    let setup = world.app("1").register::<always>().state(probe.clone());
    let setup = setup
        .set("subscribers.always.retry.attempts", 3)
        .set("subscribers.always.retry.first", "1400ms")
        .set("brokers.main.retry_ladder", vec!["2s", "3s", "1m"]);
    let process = setup.start().await;
    // From before the first attempt on: what is seen late here only makes it longer.
    let begun = Instant::now();
    process.publish(&Work::new("w", "")).await;
    probe.expect("w #1").await;
    // 1.12 to 1.4 s is rounded up to 2 s, 2.24 to 2.8 s to 3 s.
    for (attempt, waited) in [(2, 2.0), (3, 5.0)] {
        probe.expect(&format!("w #{attempt}")).await;
        let took = begun.elapsed();
        // A broker counts in milliseconds, and from when it got the message.
        let least = seconds(waited) - Duration::from_millis(20);
        assert!(
            (least..seconds(waited) + SLACK).contains(&took),
            "{attempt}: {took:?}"
        );
    }
    world.dead("always", "work", 1).await;
    process.stop().await;
    Ok(())
}

/// Fails at its first attempt, and says itself when it wants the next one.
#[subscriber(group = "own")]
async fn own_wait(work: Work, meta: Meta, probe: State<Probe>) -> Outcome {
    probe.note(format!("{} #{}", work.id, meta.attempt()));
    match work.act.parse() {
        Ok(after) if meta.attempt() == 1 => {
            Outcome::retry_after(Duration::from_secs(after), "later")
        }
        _ => Outcome::done(),
    }
}

async fn a_short_wait_does_not_wait_behind_a_long_one(world: Arc<World>) -> Ending {
    let probe = Probe::new();
    let setup = world.app("1").register::<own_wait>().state(probe.clone());
    let process = setup.start().await;
    process.publish(&Work::new("long", "5")).await;
    probe.expect("long #1").await;
    let begun = Instant::now();
    process.publish(&Work::new("short", "1")).await;
    probe.expect("short #1").await;
    process.publish(&Work::new("none", "0")).await;
    assert_eq!(probe.take(2).await, ["none #1", "none #2"]);
    probe.expect("short #2").await;
    let short = begun.elapsed();
    assert!(
        (seconds(0.9)..seconds(1.0) + SLACK).contains(&short),
        "{short:?}"
    );
    probe.expect("long #2").await;
    let long = begun.elapsed();
    assert!(
        (seconds(4.9)..seconds(5.0) + SLACK).contains(&long),
        "{long:?}"
    );
    process.stop().await;
    world.until_left("own", "work", 0).await;
    Ok(())
}

#[subscriber(group = "bystander")]
async fn bystander(work: Work, probe: State<Probe>) {
    probe.note(format!("{} by the way", work.id));
}

async fn a_retry_comes_to_its_own_subscription_only(world: Arc<World>) -> Ending {
    let probe = Probe::new();
    let setup = world
        .app("1")
        .register::<own_wait>()
        .register::<bystander>();
    let process = setup.state(probe.clone()).start().await;
    let mut outside = world.listen("work").await?;
    process.publish(&Work::new("w", "1")).await;
    assert_eq!(probe.take_sorted(2).await, ["w #1", "w by the way"]);
    probe.expect("w #2").await;
    probe.quiet().await;
    assert_eq!(outside.next().await.header("message-id"), "w");
    outside.quiet().await;
    process.stop().await;
    Ok(())
}

#[subscriber(group = "same", retry(attempts = 3, first = "100ms"))]
async fn same(raw: Raw2, meta: Meta, headers: Headers, probe: State<Probe>) -> Outcome {
    let text = |name| headers.text(name).unwrap_or_default().into_owned();
    let (tenant, first) = (text("x-tenant"), text("x-first-failure"));
    let key = meta.key().unwrap_or_default();
    let (id, topic, attempt) = (meta.id(), meta.topic(), meta.attempt());
    probe.note(format!(
        "{id} {topic} {key} {tenant} {} {}",
        raw.text,
        text("correlation-id")
    ));
    probe.note(format!("{attempt} {} {first}", text("x-attempt")));
    match attempt {
        // Waits in the process, then on the broker.
        1 => Outcome::retry("soon"),
        2 => Outcome::retry_after(Duration::from_secs(1), "later"),
        _ => Outcome::done(),
    }
}

#[derive(Debug, Message, Serialize, Deserialize)]
#[message(topic = "raw2", key = text)]
struct Raw2 {
    text: String,
}

async fn every_attempt_sees_the_message_as_it_was(world: Arc<World>) -> Ending {
    let probe = Probe::new();
    let setup = world.app("1").register::<same>().state(probe.clone());
    let process = setup.start().await;
    let given = [
        ("message-id", "i-1"),
        ("message-key", "k-1"),
        ("correlation-id", "c-1"),
        ("x-tenant", "acme"),
    ];
    let body = r#"{"text":"body"}"#;
    world
        .publish("raw2", body, given.into_iter().collect())
        .await;
    let mut firsts = Vec::new();
    for attempt in 1..=3 {
        probe.expect("i-1 raw2 k-1 acme body c-1").await;
        let note = probe.next().await;
        let words: Vec<&str> = note.splitn(3, ' ').collect();
        let [of, header, first] = words[..] else {
            panic!("{note}");
        };
        assert_eq!(of, attempt.to_string());
        assert_eq!(header, if attempt == 1 { "" } else { of });
        firsts.push(first.to_owned());
    }
    assert_eq!(firsts[0], "");
    assert!(
        firsts[1].ends_with('Z') && firsts[1] == firsts[2],
        "{firsts:?}"
    );
    process.stop().await;
    world.dead("same", "raw2", 0).await;
    Ok(())
}
