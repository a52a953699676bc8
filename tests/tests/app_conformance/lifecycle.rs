//! Pausing, going down in order, and being deployed again with other settings.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use interline::prelude::*;
use tokio::sync::Semaphore;

use crate::probe::Probe;
use crate::work::Work;
use crate::world::{LIMIT, Outcome as Ending, World, cases, until};

cases![
    a_batch_that_waits_when_the_process_drains_keeps_its_count,
    a_drain_finishes_what_runs_and_gives_back_the_rest,
    a_paused_subscriber_fetches_nothing_until_it_resumes,
    a_redeploy_with_other_options_keeps_what_is_in_the_queue,
    a_retry_that_waits_when_the_process_drains_keeps_its_count,
    nothing_begins_once_a_drain_has_begun,
    work_that_is_published_while_nobody_runs_is_kept,
];

/// What a handler may go on with.
type Leave = Arc<Semaphore>;

#[subscriber(group = "gated", concurrency = 4)]
async fn gated(work: Work, leave: State<Leave>, probe: State<Probe>) {
    probe.note(format!("begin {}", work.id));
    leave.acquire().await.expect("it stays open").forget();
    probe.note(format!("end {}", work.id));
}

async fn a_drain_finishes_what_runs_and_gives_back_the_rest(world: Arc<World>) -> Ending {
    const ALL: usize = 40;
    const ENDED: usize = 3;
    let (probe, leave) = (Probe::new(), Leave::new(Semaphore::new(0)));
    let setup = world.app("1").register::<gated>();
    let setup = setup.state(probe.clone()).state(Arc::clone(&leave));
    let process = setup.start().await;
    for at in 0..ALL {
        process.publish(&Work::new(&at.to_string(), "")).await;
    }
    let begun = notes(&probe.take(4).await, "begin ");
    assert_eq!(begun.len(), 4);
    let stopping = process.running.clone();
    let stopped = tokio::spawn(async move { stopping.stop_within(Duration::from_secs(4)).await });
    until("it drains", || process.running.health().draining).await;
    leave.add_permits(ENDED);
    stopped.await?;
    drop(process);
    let ended = notes(&probe.drain().await, "end ");
    assert_eq!(ended.len(), ENDED);
    world.until_left("gated", "work", ALL - ENDED).await;

    leave.add_permits(ALL);
    let setup = world.app("2").register::<gated>();
    let process = setup.state(probe.clone()).state(leave).start().await;
    let rest = probe.take(2 * (ALL - ENDED)).await;
    let rest = notes(&rest, "end ");
    assert_eq!(rest.len(), ALL - ENDED);
    assert!(rest.is_disjoint(&ended), "{ended:?} came again");
    probe.quiet().await;
    process.stop().await;
    world.until_left("gated", "work", 0).await;
    world.dead("gated", "work", 0).await;
    Ok(())
}

async fn nothing_begins_once_a_drain_has_begun(world: Arc<World>) -> Ending {
    let (probe, leave) = (Probe::new(), Leave::new(Semaphore::new(0)));
    let setup = world.app("1").register::<gated>();
    let setup = setup.state(probe.clone()).state(Arc::clone(&leave));
    let process = setup.start().await;
    for at in 0..10 {
        process.publish(&Work::new(&at.to_string(), "")).await;
    }
    let begun = notes(&probe.take(4).await, "begin ");
    let stopping = process.running.clone();
    let stopped = tokio::spawn(async move { stopping.stop_within(LIMIT).await });
    until("it drains", || process.running.health().draining).await;
    probe.quiet().await;
    leave.add_permits(10);
    stopped.await?;
    // All four, although they took their time, and no other.
    let after = probe.drain().await;
    assert_eq!((after.len(), notes(&after, "end ")), (4, begun));
    drop(process);
    world.until_left("gated", "work", 6).await;
    Ok(())
}

/// What stands behind `prefix` in those notes that begin with it.
fn notes(all: &[String], prefix: &str) -> BTreeSet<String> {
    let found = all.iter().filter_map(|note| note.strip_prefix(prefix));
    found.map(str::to_owned).collect()
}

#[subscriber(group = "plain")]
async fn plain(work: Work, probe: State<Probe>) {
    probe.note(&work.id);
}

async fn a_paused_subscriber_fetches_nothing_until_it_resumes(world: Arc<World>) -> Ending {
    let probe = Probe::new();
    let setup = world.app("1").register::<plain>().state(probe.clone());
    let process = setup.start().await;
    process.publish(&Work::new("before", "")).await;
    probe.expect("before").await;
    process.running.pause("plain").await?;
    for id in ["1", "2", "3"] {
        process.publish(&Work::new(id, "")).await;
    }
    probe.quiet().await;
    world.until_left("plain", "work", 3).await;
    let paused = process.running.health();
    assert!(paused.live, "{paused:?}");
    process.running.resume("plain").await?;
    assert_eq!(probe.take_sorted(3).await, ["1", "2", "3"]);
    let wrong = process.running.pause("plains").await.expect_err("a typo");
    assert!(
        wrong.to_string().contains("did you mean `plain`"),
        "{wrong}"
    );
    process.stop().await;
    world.until_left("plain", "work", 0).await;
    Ok(())
}

async fn work_that_is_published_while_nobody_runs_is_kept(world: Arc<World>) -> Ending {
    let probe = Probe::new();
    let setup = world.app("1").register::<plain>().state(probe.clone());
    setup.start().await.stop().await;
    let publisher = world
        .app("2")
        .set("service.name", "desk")
        .with(App::publish_only)
        .start()
        .await;
    for id in ["1", "2"] {
        publisher.publish(&Work::new(id, "")).await;
    }
    publisher.stop().await;
    world.until_left("plain", "work", 2).await;
    let setup = world.app("3").register::<plain>().state(probe.clone());
    let process = setup.start().await;
    assert_eq!(probe.take_sorted(2).await, ["1", "2"]);
    process.stop().await;
    Ok(())
}

/// Fails at its first two attempts where it is told to.
#[subscriber(group = "redeployed")]
async fn redeployed(work: Work, meta: Meta, probe: State<Probe>) -> Result<(), AnyError> {
    probe.note(format!("{} #{}", work.id, meta.attempt()));
    if work.act == "fail" && meta.attempt() < 3 {
        return Err("not yet".into());
    }
    probe.note(format!("done {}", work.id));
    Ok(())
}

type AnyError = Box<dyn std::error::Error + Send + Sync>;

async fn a_redeploy_with_other_options_keeps_what_is_in_the_queue(world: Arc<World>) -> Ending {
    const ALL: usize = 40;
    let probe = Probe::new();
    let setup = world.app("1").register::<redeployed>().state(probe.clone());
    let setup = setup
        .set("subscribers.redeployed.concurrency", 2)
        .set("subscribers.redeployed.timeout", "5s")
        .set("subscribers.redeployed.retry.attempts", 4)
        .set("subscribers.redeployed.retry.first", "2s")
        .set("subscribers.redeployed.rate", "10/s");
    let process = setup.start().await;
    for at in 0..ALL {
        let act = if at % 3 == 0 { "fail" } else { "" };
        process.publish(&Work::new(&at.to_string(), act)).await;
    }
    let mut before = probe.take(8).await;
    process.stop().await;
    before.extend(probe.drain().await);
    let done = notes(&before, "done ");
    assert!(done.len() < ALL, "the second half is for the other one");

    let setup = world.app("2").register::<redeployed>().state(probe.clone());
    let setup = setup
        .set("subscribers.redeployed.concurrency", 7)
        .set("subscribers.redeployed.timeout", "2s")
        .set("subscribers.redeployed.retry.attempts", 9)
        .set("subscribers.redeployed.retry.first", "100ms")
        .set("subscribers.redeployed.retry.max", "1s")
        .set("brokers.main.retry_ladder", vec!["1s", "3s"]);
    let process = setup.start().await;
    let mut ended = Vec::new();
    while ended.len() < ALL - done.len() {
        let note = probe.next().await;
        ended.extend(note.strip_prefix("done ").map(str::to_owned));
    }
    let distinct: BTreeSet<String> = ended.iter().cloned().collect();
    assert_eq!(distinct.len(), ended.len(), "something came twice");
    assert!(distinct.is_disjoint(&done), "something came again");
    probe.quiet().await;
    process.stop().await;
    world.until_left("redeployed", "work", 0).await;
    world.dead("redeployed", "work", 0).await;
    Ok(())
}

#[subscriber(group = "waiting", retry(attempts = 3, first = "900ms", factor = 1.0))]
async fn waiting(work: Work, meta: Meta, probe: State<Probe>) -> Outcome {
    probe.note(format!("{} #{}", work.id, meta.attempt()));
    Outcome::retry("always")
}

async fn a_retry_that_waits_when_the_process_drains_keeps_its_count(world: Arc<World>) -> Ending {
    let probe = Probe::new();
    let setup = world.app("1").register::<waiting>().state(probe.clone());
    let process = setup.start().await;
    process.publish(&Work::new("w", "")).await;
    probe.expect("w #1").await;
    // It waits for its second attempt within the process.
    process.stop().await;
    let setup = world.app("2").register::<waiting>().state(probe.clone());
    let process = setup.start().await;
    assert_eq!(probe.take(2).await, ["w #2", "w #3"]);
    let letter = world.dead("waiting", "work", 1).await.remove(0);
    assert_eq!(letter.header("x-dlq-attempts"), "3");
    let (first, last) = (
        letter.header("x-dlq-first-failed-at"),
        letter.header("x-dlq-failed-at"),
    );
    assert!(first < last, "{first} {last}");
    process.stop().await;
    Ok(())
}

#[subscriber(
    group = "waiting-batches",
    batch(max = 2, wait = "5s"),
    retry(attempts = 3, first = "900ms", factor = 1.0)
)]
async fn waiting_together(many: Batch<Work>, probe: State<Probe>) -> Result<(), AnyError> {
    for item in many.iter() {
        probe.note(format!(
            "{} #{}",
            item.payload().id,
            item.incoming().attempt
        ));
    }
    Err("always".into())
}

async fn a_batch_that_waits_when_the_process_drains_keeps_its_count(world: Arc<World>) -> Ending {
    let probe = Probe::new();
    let setup = world.app("1").register::<waiting_together>();
    let process = setup.state(probe.clone()).start().await;
    for id in ["v", "w"] {
        process.publish(&Work::new(id, "")).await;
    }
    assert_eq!(probe.take_sorted(2).await, ["v #1", "w #1"]);
    // They wait for their second attempt within the process.
    process.stop().await;
    let setup = world.app("2").register::<waiting_together>();
    let process = setup.state(probe.clone()).start().await;
    let again = probe.take_sorted(4).await;
    assert_eq!(again, ["v #2", "v #3", "w #2", "w #3"]);
    for letter in world.dead("waiting-batches", "work", 2).await {
        assert_eq!(letter.header("x-dlq-attempts"), "3");
    }
    process.stop().await;
    Ok(())
}
