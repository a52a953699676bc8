//! Handlers that panic, hang, or cannot publish what they made.

use std::sync::Arc;
use std::time::Duration;

use interline::prelude::*;

use crate::probe::Probe;
use crate::work::{Made, Work};
use crate::world::{Outcome as Ending, World, cases};

cases![
    a_hanging_handler_is_a_failed_attempt_and_is_told,
    a_panic_is_a_failed_attempt_and_nothing_more,
    an_output_that_nobody_listens_to_is_a_failed_attempt,
    manual_settlement_is_whenever_the_handler_says,
];

#[subscriber(group = "panics", concurrency = 2, retry(attempts = 2, first = "50ms"))]
async fn panics(work: Work, meta: Meta, probe: State<Probe>) {
    probe.note(format!("{} #{}", work.id, meta.attempt()));
    match &*work.act {
        "text" => panic!("on purpose"),
        "formatted" => panic!("on purpose, {}", work.id),
        "value" => std::panic::panic_any(7_u8),
        "late" => {
            tokio::task::yield_now().await;
            panic!("late")
        }
        _ => {}
    }
}

async fn a_panic_is_a_failed_attempt_and_nothing_more(world: Arc<World>) -> Ending {
    let probe = Probe::new();
    let setup = world.app("1").register::<panics>().state(probe.clone());
    let process = setup.start().await;
    for (act, error) in [
        ("text", "on purpose"),
        ("formatted", "on purpose, formatted"),
        ("value", "the handler panicked"),
        ("late", "late"),
    ] {
        process.publish(&Work::new(act, act)).await;
        probe.expect(&format!("{act} #1")).await;
        probe.expect(&format!("{act} #2")).await;
        let letter = world.dead("panics", "work", 1).await.remove(0);
        assert_eq!(letter.header("x-dlq-reason"), "panic");
        assert_eq!(letter.header("x-dlq-error"), error);
        assert_eq!(letter.header("x-dlq-attempts"), "2");
    }
    // More of them than there are places: each gave its place back.
    process.publish(&Work::new("fine", "")).await;
    probe.expect("fine #1").await;
    assert!(process.running.health().ready);
    process.stop().await;
    world.until_left("panics", "work", 0).await;
    Ok(())
}

#[subscriber(
    group = "hangs",
    concurrency = 1,
    timeout = "300ms",
    retry(attempts = 2, first = "50ms")
)]
async fn hangs(work: Work, meta: Meta, cancel: Cancel, probe: State<Probe>) {
    probe.note(format!("{} #{}", work.id, meta.attempt()));
    if work.act == "hang" {
        let told = Probe::clone(&probe);
        let id = work.id.clone();
        tokio::spawn(async move {
            cancel.cancelled().await;
            told.note(format!("{id} cancelled"));
        });
        std::future::pending::<()>().await;
    }
}

async fn a_hanging_handler_is_a_failed_attempt_and_is_told(world: Arc<World>) -> Ending {
    let probe = Probe::new();
    let setup = world.app("1").register::<hangs>().state(probe.clone());
    let process = setup.start().await;
    process.publish(&Work::new("w", "hang")).await;
    let notes = probe.take(4).await;
    assert_eq!(notes, ["w #1", "w cancelled", "w #2", "w cancelled"]);
    let letter = world.dead("hangs", "work", 1).await.remove(0);
    assert_eq!(letter.header("x-dlq-reason"), "timeout");
    assert!(letter.header("x-dlq-error").contains("300ms"));
    process.publish(&Work::new("v", "")).await;
    probe.expect("v #1").await;

    // The configuration has the last word.
    process.stop().await;
    let setup = world.app("2").register::<hangs>().state(probe.clone());
    let setup = setup.set("subscribers.hangs.timeout", "100ms");
    let process = setup.start().await;
    process.publish(&Work::new("u", "hang")).await;
    probe.take(4).await;
    let letter = world.dead("hangs", "work", 1).await.remove(0);
    assert!(letter.header("x-dlq-error").contains("100ms"));
    process.stop().await;
    Ok(())
}

#[derive(Debug, Message, Serialize, Deserialize)]
#[message(topic = "wanted")]
struct Wanted {
    of: String,
}

#[subscriber(group = "unroutable", retry(attempts = 3, first = "50ms"))]
async fn unroutable(work: Work, meta: Meta, probe: State<Probe>) -> (Made, Wanted) {
    probe.note(format!("{} #{}", work.id, meta.attempt()));
    (Made::new(&work.id, "before"), Wanted { of: work.id })
}

async fn an_output_that_nobody_listens_to_is_a_failed_attempt(world: Arc<World>) -> Ending {
    let probe = Probe::new();
    let mut made = world.listen("made").await?;
    let setup = world.app("1").register::<unroutable>().state(probe.clone());
    let process = setup.start().await;
    process.publish(&Work::new("w", "")).await;
    assert_eq!(probe.take(3).await, ["w #1", "w #2", "w #3"]);
    let letter = world.dead("unroutable", "work", 1).await.remove(0);
    assert_eq!(letter.header("x-dlq-reason"), "output_unroutable");
    assert!(letter.header("x-dlq-error").contains("wanted"));
    // What was sent before it was sent each time, as the same message.
    let sent = made.take(3).await;
    for again in &sent {
        assert_eq!(again.header("message-id"), sent[0].header("message-id"));
    }
    // As soon as somebody listens it works.
    let mut wanted = world.listen("wanted").await?;
    process.publish(&Work::new("v", "")).await;
    assert_eq!(wanted.next().await.text(), r#"{"of":"v"}"#);
    process.stop().await;
    world.until_left("unroutable", "work", 0).await;
    Ok(())
}

#[subscriber(group = "manual", ack = manual, concurrency = 2, retry(attempts = 2, first = "50ms"))]
async fn manual(work: Work, meta: Meta, settle: Settle, probe: State<Probe>) -> Option<Made> {
    probe.note(format!("{} #{}", work.id, meta.attempt()));
    let later = Probe::clone(&probe);
    let made = Made::new(&work.id, "by hand");
    match &*work.act {
        "forget" => drop(settle),
        "retry" if meta.attempt() == 1 => settle.retry("once"),
        "never" => settle.dead_letter("never"),
        _ => {
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(300)).await;
                later.note(format!("{} settled", work.id));
                settle.done();
            });
        }
    }
    Some(made)
}

async fn manual_settlement_is_whenever_the_handler_says(world: Arc<World>) -> Ending {
    let probe = Probe::new();
    let mut made = world.listen("made").await?;
    let setup = world.app("1").register::<manual>().state(probe.clone());
    let process = setup.start().await;
    process.publish(&Work::new("w", "")).await;
    assert_eq!(probe.take(2).await, ["w #1", "w settled"]);
    assert_eq!(made.next().await.header("causation-id"), "w");
    process.publish(&Work::new("r", "retry")).await;
    assert_eq!(probe.take(3).await, ["r #1", "r #2", "r settled"]);
    assert_eq!(made.next().await.header("causation-id"), "r");
    for (id, act, attempts, reason) in [
        ("n", "never", 1, "rejected"),
        ("f", "forget", 2, "retries_exhausted"),
    ] {
        process.publish(&Work::new(id, act)).await;
        probe.take(attempts).await;
        let letter = world.dead("manual", "work", 1).await.remove(0);
        assert_eq!(letter.header("x-dlq-reason"), reason);
        assert_eq!(letter.header("x-dlq-attempts"), attempts.to_string());
    }
    made.quiet().await;
    process.stop().await;
    world.until_left("manual", "work", 0).await;
    Ok(())
}
