//! Drains, crashes and lost connections.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_drain_finishes_what_runs_and_gives_the_rest_back() {
    let world = World::new().await;
    let seen = Seen::default();
    let slow = handler(&seen, |_, _| async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        Outcome::done()
    });
    let slow_planned = planned_with("orders", slow, |planned| planned.concurrency = 1);
    let runner = world.run(slow_planned).await;
    for body in ["1", "2", "3"] {
        world.publish("orders", body, &[]).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let drained = runner.stop(Instant::now() + Duration::from_secs(10)).await;
    assert_eq!(seen.take(), ["1#1"]);
    assert_eq!(drained.returned, 2);

    let quick = world
        .run(planned("orders", answering(&seen, Outcome::done)))
        .await;
    world.settled().await;
    let mut rest = seen.take();
    rest.sort();
    assert_eq!(rest, ["2#1", "3#1"]);
    drop(quick);
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_does_not_end_is_stopped_at_the_deadline_and_its_message_goes_back() {
    let world = World::new().await;
    let seen = Seen::default();
    let runner = world
        .run(planned(
            "orders",
            handler(&seen, |_, _| std::future::pending()),
        ))
        .await;
    world.publish("orders", "1", &[]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let drained = runner.stop(Instant::now() + Duration::from_secs(3)).await;
    assert_eq!(drained.returned, 1);
    let _next = world
        .run(planned("orders", answering(&seen, Outcome::done)))
        .await;
    world.settled().await;
    assert_eq!(seen.take(), ["1#1", "1#1"]);
}

/// Dies once at a point.
struct DieAt(CrashPoint, AtomicUsize);

impl CrashPoints for DieAt {
    fn reached(&self, point: CrashPoint) -> bool {
        point == self.0 && self.1.fetch_add(1, Ordering::SeqCst) == 0
    }
}

#[tokio::test(start_paused = true)]
async fn a_crash_between_any_two_steps_loses_nothing() {
    let cases = [
        (CrashPoint::BeforeHandler, 1),
        (CrashPoint::BeforeOutputs, 2),
        (CrashPoint::BeforeSettlement, 2),
        (CrashPoint::AfterSettlement, 1),
    ];
    for (point, runs) in cases {
        let store = MemoryStore::new(MemoryOptions::for_tests(1));
        let seen = Seen::default();
        let first = World::on(&store, "one", |environment| {
            environment.crash_points = Some(Arc::new(DieAt(point, AtomicUsize::new(0))));
        })
        .await;
        let runner = first
            .run(planned("orders", answering(&seen, Outcome::done)))
            .await;
        first.publish("orders", "x", &[]).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        runner.abandon().await;
        store.kill("one");
        let second = World::on(&store, "two", |_| {}).await;
        let _runner = second
            .run(planned("orders", answering(&seen, Outcome::done)))
            .await;
        second.settled().await;
        assert_eq!(seen.take().len(), runs, "{point:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_makes_old_settlements_stale_and_the_message_comes_again() {
    let world = World::new().await;
    let seen = Seen::default();
    let slow = handler(&seen, |_, _| async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        Outcome::done()
    });
    let _runner = world.run(planned("orders", slow)).await;
    world.publish("orders", "x", &[]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.store.faults().disconnect(Duration::from_secs(1));
    tokio::time::sleep(Duration::from_secs(20)).await;
    world.settled().await;
    assert_eq!(seen.take(), ["x#1", "x#1"]);
    assert_eq!(world.metrics.sum(metrics::REDELIVERED, &[]), 1.0);
}
