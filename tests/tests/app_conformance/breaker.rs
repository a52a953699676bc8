//! What fails too often is fetched no more, until one message at a time shows that it works again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use interline::messaging::ConsumerState;
use interline::prelude::*;
use interline::resilience::CircuitState;
use tokio::time::Instant;

use crate::probe::Probe;
use crate::work::Work;
use crate::world::{Outcome as Ending, World, cases, until};

cases![
    a_breaker_stops_fetching_and_tries_one_at_a_time,
    a_failing_batch_behind_a_breaker_is_given_up_after_its_attempts,
];

/// Whether what the handler needs is away.
struct Away(Arc<AtomicBool>);

type AnyError = Box<dyn std::error::Error + Send + Sync>;

#[subscriber(
    group = "fragile",
    concurrency = 2,
    retry(attempts = 100, first = "10ms", max = "10ms"),
    breaker(
        ratio = 0.5,
        minimum = 4,
        window = "30s",
        wait = "500ms",
        max = "500ms"
    )
)]
async fn fragile(work: Work, away: State<Away>, probe: State<Probe>) -> Result<(), AnyError> {
    if away.0.load(Ordering::SeqCst) {
        probe.note("failed");
        return Err("it is away".into());
    }
    probe.note(format!("done {:>2}", work.id));
    Ok(())
}

async fn a_breaker_stops_fetching_and_tries_one_at_a_time(world: Arc<World>) -> Ending {
    const ALL: usize = 20;
    let (probe, away) = (Probe::new(), Arc::new(AtomicBool::new(true)));
    let setup = world.app("1").register::<fragile>().state(probe.clone());
    let process = setup.state(Away(Arc::clone(&away))).start().await;
    let health = || {
        let subscription = process.running.health().subscriptions.remove(0);
        (subscription.state, subscription.breaker)
    };
    let begun = Instant::now();
    for at in 0..ALL {
        process.publish(&Work::new(&at.to_string(), "")).await;
    }
    until("it opens", || health().1 == CircuitState::Open).await;
    // Four, and what had begun beside the last of them.
    let mut failed = probe.take(4).await.len();
    while failed < 8 {
        assert_eq!(probe.next().await, "failed");
        failed += 1;
    }
    // The last three, at the least, were tried one by one.
    assert!(begun.elapsed() > Duration::from_millis(800));
    away.store(false, Ordering::SeqCst);
    let mut done = Vec::new();
    while done.len() < ALL {
        match probe.next().await {
            note if note == "failed" => failed += 1,
            note => done.push(note),
        }
    }
    probe.quiet().await;
    assert!(failed <= 10, "{failed} attempts failed");
    done.sort();
    let expected: Vec<_> = (0..ALL).map(|at| format!("done {at:>2}")).collect();
    assert_eq!(done, expected);
    until("it closes", || {
        health() == (ConsumerState::Running, CircuitState::Closed)
    })
    .await;
    process.stop().await;
    Ok(())
}

#[subscriber(
    group = "broken",
    batch(max = 3, wait = "300ms"),
    retry(attempts = 3, first = "50ms", max = "50ms"),
    breaker(
        ratio = 0.5,
        minimum = 1,
        window = "30s",
        wait = "200ms",
        max = "200ms"
    )
)]
async fn broken(many: Batch<Work>, probe: State<Probe>) -> Result<(), AnyError> {
    for item in many.iter() {
        probe.note(format!(
            "{} #{}",
            item.payload().id,
            item.incoming().attempt
        ));
    }
    Err("it is broken".into())
}

async fn a_failing_batch_behind_a_breaker_is_given_up_after_its_attempts(
    world: Arc<World>,
) -> Ending {
    let probe = Probe::new();
    let setup = world.app("1").register::<broken>().state(probe.clone());
    let process = setup.start().await;
    let ids = ["a", "b", "c"];
    for id in ids {
        process.publish(&Work::new(id, "")).await;
    }
    for letter in world.dead("broken", "work", ids.len()).await {
        assert_eq!(letter.header("x-dlq-attempts"), "3");
    }
    let each = |id: &str| (1..=3).map(|at| format!("{id} #{at}")).collect::<Vec<_>>();
    assert_eq!(probe.take_sorted(9).await, ids.map(each).concat());
    probe.quiet().await;
    process.stop().await;
    world.until_left("broken", "work", 0).await;
    Ok(())
}
