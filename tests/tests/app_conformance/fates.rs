//! Each fate, as handlers say it and as somebody outside sees it.

use std::sync::Arc;
use std::time::Duration;

use interline::prelude::*;
use tokio::time::Instant;

use crate::probe::Probe;
use crate::work::{Made, Work};
use crate::world::{Outcome as Ending, World, cases};

cases![
    a_failure_has_the_fate_that_its_type_says,
    each_fate_does_what_it_says,
    what_is_given_up_is_kept_as_it_was,
];

/// Does what the work says; whatever fails, fails at its first attempt.
#[subscriber(group = "fates", retry(attempts = 3, first = "50ms"))]
async fn outcomes(work: Work, meta: Meta, probe: State<Probe>) -> Outcome {
    probe.note(format!("{} #{}", work.id, meta.attempt()));
    let act = if meta.attempt() == 1 {
        &*work.act
    } else {
        "done"
    };
    match act {
        "retry" => Outcome::retry("once more"),
        "later" => Outcome::retry_after(Duration::from_millis(500), "later"),
        "never" => Outcome::dead_letter("never"),
        "drop" => Outcome::discard("not needed"),
        _ => Outcome::done(),
    }
}

async fn each_fate_does_what_it_says(world: Arc<World>) -> Ending {
    let probe = Probe::new();
    let setup = world.app("1").register::<outcomes>().state(probe.clone());
    let process = setup.start().await;
    for (act, notes) in [
        ("done", &["done #1"][..]),
        ("retry", &["retry #1", "retry #2"]),
        ("later", &["later #1", "later #2"]),
        ("never", &["never #1"]),
        ("drop", &["drop #1"]),
    ] {
        let begun = Instant::now();
        process.publish(&Work::new(act, act)).await;
        for note in notes {
            probe.expect(note).await;
        }
        if act == "later" {
            assert!(begun.elapsed() >= Duration::from_millis(500));
        }
    }
    let letters = world.dead("fates", "work", 1).await;
    assert_eq!(letters[0].header("message-id"), "never");
    assert_eq!(letters[0].header("x-dlq-reason"), "rejected");
    probe.quiet().await;
    process.stop().await;
    world.until_left("fates", "work", 0).await;
    Ok(())
}

#[derive(Debug, thiserror::Error, Failure)]
enum WorkError {
    #[error("unreachable")]
    #[fate(retry)]
    Unreachable(#[source] std::io::Error),
    #[error("not yet")]
    #[fate(retry(after = "300ms"))]
    NotYet,
    #[error("refused")]
    #[fate(dead_letter)]
    Refused,
    #[error("known")]
    #[fate(discard)]
    Known,
    #[error("closed")]
    #[fate(pause = "300ms")]
    Closed,
}

#[subscriber(group = "failing", retry(attempts = 2, first = "50ms"))]
async fn failing(work: Work, meta: Meta, probe: State<Probe>) -> Result<Made, WorkError> {
    probe.note(format!("{} #{}", work.id, meta.attempt()));
    Err(match &*work.act {
        "unreachable" => WorkError::Unreachable(std::io::Error::other("reset")),
        "not-yet" if meta.attempt() == 1 => WorkError::NotYet,
        "refused" => WorkError::Refused,
        "known" => WorkError::Known,
        "closed" if !probe.seen_before(&work.id) => WorkError::Closed,
        _ => return Ok(Made::new(&work.id, "made")),
    })
}

async fn a_failure_has_the_fate_that_its_type_says(world: Arc<World>) -> Ending {
    let probe = Probe::new();
    let mut made = world.listen("made").await?;
    let setup = world.app("1").register::<failing>().state(probe.clone());
    let process = setup.start().await;
    let run = async |id: &str, notes: &[&str]| {
        let begun = Instant::now();
        process.publish(&Work::new(id, id)).await;
        for note in notes {
            probe.expect(note).await;
        }
        begun.elapsed()
    };
    run("unreachable", &["unreachable #1", "unreachable #2"]).await;
    let letter = world.dead("failing", "work", 1).await.remove(0);
    assert_eq!(letter.header("x-dlq-reason"), "retries_exhausted");
    assert_eq!(letter.header("x-dlq-error"), "unreachable: reset");
    assert_eq!(letter.header("x-dlq-error-type"), "WorkError::Unreachable");
    assert_eq!(letter.header("x-dlq-attempts"), "2");

    let took = run("not-yet", &["not-yet #1", "not-yet #2"]).await;
    assert!(took >= Duration::from_millis(300), "{took:?}");
    assert_eq!(made.next().await.header("causation-id"), "not-yet");

    run("refused", &["refused #1"]).await;
    let letter = world.dead("failing", "work", 1).await.remove(0);
    assert_eq!(letter.header("x-dlq-reason"), "rejected");
    assert_eq!(letter.header("x-dlq-error"), "refused");

    run("known", &["known #1"]).await;
    // A pause costs no attempt, and what comes meanwhile waits with it.
    let took = run("closed", &["closed #1", "closed #1"]).await;
    assert!(took >= Duration::from_millis(300), "{took:?}");
    assert_eq!(made.next().await.header("causation-id"), "closed");
    probe.quiet().await;
    made.quiet().await;
    process.stop().await;
    world.dead("failing", "work", 0).await;
    world.until_left("failing", "work", 0).await;
    Ok(())
}

async fn what_is_given_up_is_kept_as_it_was(world: Arc<World>) -> Ending {
    let probe = Probe::new();
    let setup = world.app("1").register::<outcomes>().state(probe.clone());
    let process = setup.start().await;
    // Not as our own writer would put it.
    let body = "{ \"act\" : \"never\",\n  \"key\":\"k\", \"more\": [1, 2.50], \"id\":\"x\" }";
    let given = [
        ("content-type", "application/json; charset=utf-8"),
        ("message-id", "given/1"),
        ("message-key", "k"),
        ("message-type", "Work"),
        ("correlation-id", "correlated"),
        ("x-tenant", "acme"),
        ("X-Other-Case", "kept"),
        ("x-empty", ""),
    ];
    let headers: Headers = given.into_iter().collect();
    world.publish("work", body, headers).await;
    probe.expect("x #1").await;
    let letter = world.dead("fates", "work", 1).await.remove(0);
    assert_eq!(letter.text(), body);
    for (name, value) in given {
        assert_eq!(letter.header(name), value, "{name}");
    }
    for (name, value) in [
        ("x-dlq-reason", "rejected"),
        ("x-dlq-error", "never"),
        ("x-dlq-error-type", "Outcome"),
        ("x-dlq-attempts", "1"),
        ("x-dlq-topic", "work"),
        ("x-dlq-group", "fates"),
        ("x-dlq-service", "conform"),
        ("x-dlq-handler", "outcomes"),
    ] {
        assert_eq!(letter.header(name), value, "{name}");
    }
    let failed_at = letter.header("x-dlq-failed-at");
    assert_eq!(letter.header("x-dlq-first-failed-at"), failed_at);
    assert!(failed_at.ends_with('Z'), "{failed_at}");
    assert!(letter.header("x-dlq-origin").starts_with("main:"));
    process.stop().await;
    Ok(())
}
