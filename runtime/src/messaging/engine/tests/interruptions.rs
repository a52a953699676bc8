//! Breakers and pauses: what keeps its place, what keeps its count, and what cannot go back.

use std::sync::atomic::AtomicBool;

use super::*;
use crate::resilience::CircuitState;

/// A breaker that opens at the first failures and is quick to try again.
fn breaker() -> BreakerPolicy {
    BreakerPolicy {
        ratio: 0.5,
        minimum: 1,
        window: Duration::from_secs(30),
        wait: Duration::from_millis(500),
        max: Duration::from_millis(500),
    }
}

/// A batch handler that notes each message and ends all of them alike.
fn batches(
    seen: &Seen,
    outcome: impl Fn(&[Arc<Incoming>]) -> Outcome + Send + Sync + 'static,
) -> Handler {
    let (seen, outcome) = (seen.clone(), Arc::new(outcome));
    Handler::batch(move |messages, _| {
        let (seen, outcome) = (seen.clone(), Arc::clone(&outcome));
        async move {
            messages.iter().for_each(|incoming| seen.note(incoming));
            let whole = outcome(&messages);
            messages.iter().map(|_| whole.clone()).collect()
        }
    })
}

/// Whether this is the first time that anybody asks.
fn first(asked: &AtomicBool) -> bool {
    !asked.swap(true, Ordering::SeqCst)
}

fn in_order(planned: &mut PlannedSubscription) {
    planned.ordered_by = Some(OrderedBy::Key);
    Arc::make_mut(&mut planned.subscription).ordered_by = Some(OrderedBy::Key);
}

#[tokio::test(start_paused = true)]
async fn a_failing_batch_behind_a_breaker_is_given_up_after_its_attempts() {
    let world = World::new().await;
    let seen = Seen::default();
    let planned = planned_with(
        "orders",
        batches(&seen, |_| Outcome::retry("the bank is down")),
        |planned| {
            planned.batch = Some(BatchOptions::new(3, Duration::from_millis(100)));
            planned.breaker = Some(breaker());
            planned.handlers[0].retry.attempts = 4;
        },
    );
    let _runner = world.run(planned.clone()).await;
    for body in ["a", "b", "c"] {
        world.publish("orders", body, &[]).await;
    }
    // What nobody fetches is not waited for.
    tokio::time::sleep(Duration::from_secs(60)).await;
    world.settled().await;
    let mut attempts = seen.take();
    attempts.sort();
    let each = |body: &str| (1..=4).map(|at| format!("{body}#{at}")).collect::<Vec<_>>();
    assert_eq!(attempts, [each("a"), each("b"), each("c")].concat());
    let letters = world.dead_letters(&planned).await;
    assert_eq!(letters.len(), 3);
    for letter in letters {
        assert_eq!(
            letter.headers.text(name::DLQ_ATTEMPTS).as_deref(),
            Some("4")
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_waits_in_the_process_when_it_drains_keeps_its_count() {
    let world = World::new().await;
    let seen = Seen::default();
    let waits = |planned: &mut PlannedSubscription| {
        planned.batch = Some(BatchOptions::new(2, Duration::from_millis(100)));
        planned.handlers[0].retry.first = Duration::from_millis(900);
    };
    let failing = batches(&seen, |_| Outcome::retry("not yet"));
    let runner = world.run(planned_with("orders", failing, waits)).await;
    world.publish("orders", "a", &[]).await;
    world.publish("orders", "b", &[]).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    runner.stop(Instant::now() + Duration::from_secs(5)).await;
    assert_eq!(seen.take(), ["a#1", "b#1"]);
    let done = batches(&seen, |_| Outcome::done());
    let _next = world.run(planned_with("orders", done, waits)).await;
    world.settled().await;
    let mut again = seen.take();
    again.sort();
    assert_eq!(again, ["a#2", "b#2"]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_pauses_in_its_place_and_as_long_as_it_asks() {
    for ordered in [false, true] {
        let world = World::new().await;
        let seen = Seen::default();
        let asked = AtomicBool::new(false);
        let pausing = batches(&seen, move |messages| {
            let pauses = &messages[0].body[..] == b"1" && first(&asked);
            match pauses {
                true => Outcome::pause(Duration::from_millis(300), "bank down"),
                false => Outcome::done(),
            }
        });
        let planned = planned_with("orders", pausing, |planned| {
            planned.batch = Some(BatchOptions::new(1, Duration::from_millis(10)));
            planned.concurrency = 1;
            if ordered {
                in_order(planned);
            }
        });
        let _runner = world.run(planned).await;
        let begun = Instant::now();
        for body in ["1", "2", "3"] {
            world
                .publish("orders", body, &[(name::MESSAGE_KEY, "k")])
                .await;
        }
        world.settled().await;
        let mut all = seen.take();
        assert_eq!(all.first().map(String::as_str), Some("1#1"));
        if !ordered {
            all.sort();
        }
        assert_eq!(all, ["1#1", "1#1", "2#1", "3#1"], "ordered: {ordered}");
        let took = begun.elapsed();
        assert!(
            took < Duration::from_millis(900),
            "ordered: {ordered}, {took:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn what_waits_in_a_lane_stays_there_while_the_breaker_is_open() {
    for batch in [None, Some(BatchOptions::new(2, Duration::from_millis(10)))] {
        let world = World::new().await;
        let seen = Seen::default();
        let away = Arc::new(AtomicBool::new(true));
        let asked = Arc::clone(&away);
        let outcome = move || match asked.load(Ordering::SeqCst) {
            true => Outcome::retry("away"),
            false => Outcome::done(),
        };
        let handler = match batch {
            Some(_) => batches(&seen, move |_| outcome()),
            None => handler(&seen, move |_, _| std::future::ready(outcome())),
        };
        let planned = planned_with("orders", handler, |planned| {
            planned.batch = batch;
            planned.breaker = Some(breaker());
            planned.handlers[0].retry = RetryPolicy {
                attempts: 20,
                first: Duration::from_millis(10),
                max: Duration::from_millis(10),
                factor: 1.0,
            };
            in_order(planned);
        });
        let runner = world.run(planned).await;
        for body in ["1", "2", "3", "4"] {
            world
                .publish("orders", body, &[(name::MESSAGE_KEY, "k")])
                .await;
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_ne!(runner.health().breaker, CircuitState::Closed);
        // What was taken is here still: everything, or the first batch.
        let taken = batch.map_or(4, |_| 2);
        assert_eq!(runner.health().in_flight, taken);
        away.store(false, Ordering::SeqCst);
        world.settled().await;
        let seen = seen.take();
        let (failed, done): (Vec<_>, Vec<_>) = seen
            .iter()
            .partition(|one| one.starts_with('1') || batch.is_some() && one.starts_with('2'));
        // The attempts go on where they were, one for each probe.
        let attempts: Vec<_> = (1..=failed.len()).map(|at| format!("1#{at}")).collect();
        if batch.is_none() {
            assert_eq!(failed, attempts.iter().collect::<Vec<_>>());
            assert_eq!(done, ["2#1", "3#1", "4#1"]);
        } else {
            assert_eq!(done, ["3#1", "4#1"]);
        }
        assert!(failed.len() > 3, "{failed:?}");
        assert_eq!(world.metrics.sum(metrics::REDELIVERED, &[]), 0.0);
        assert_eq!(runner.health().breaker, CircuitState::Closed);
    }
}

#[tokio::test(start_paused = true)]
async fn what_waits_in_a_lane_does_not_begin_while_the_subscription_is_paused() {
    let world = World::new().await;
    let seen = Seen::default();
    let slow = handler(&seen, |_, _| async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Outcome::done()
    });
    let runner = world.run(planned_with("orders", slow, in_order)).await;
    for body in ["1", "2", "3"] {
        world
            .publish("orders", body, &[(name::MESSAGE_KEY, "k")])
            .await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    runner.pause().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(seen.take(), ["1#1"]);
    runner.resume().await;
    world.settled().await;
    assert_eq!(seen.take(), ["2#1", "3#1"]);
}

#[tokio::test(start_paused = true)]
async fn a_breaker_stops_what_is_acknowledged_on_receipt_too() {
    let world = World::new().await;
    let seen = Seen::default();
    let away = Arc::new(AtomicBool::new(true));
    let asked = Arc::clone(&away);
    let handler = handler(&seen, move |_, _| {
        let away = asked.load(Ordering::SeqCst);
        async move {
            match away {
                true => Outcome::retry("away"),
                false => Outcome::done(),
            }
        }
    });
    let planned = planned_with("orders", handler, |planned| {
        planned.ack = Ack::OnReceive;
        planned.concurrency = 1;
        planned.handlers[0].retry = RetryPolicy::NONE;
        planned.breaker = Some(BreakerPolicy {
            minimum: 3,
            wait: Duration::from_secs(30),
            max: Duration::from_secs(30),
            ..breaker()
        });
    });
    let runner = world.run(planned).await;
    for body in ["1", "2", "3", "4", "5"] {
        world.publish("orders", body, &[]).await;
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(seen.take(), ["1#1", "2#1", "3#1"]);
    assert_eq!(runner.health().breaker, CircuitState::Open);
    away.store(false, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let mut rest = seen.take();
    rest.sort();
    assert_eq!(rest, ["4#1", "5#1"]);
    assert_eq!(runner.health().breaker, CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_long_pause_of_what_is_acknowledged_is_waited_out_in_the_process() {
    let world = World::new().await;
    let seen = Seen::default();
    let asked = Arc::new(AtomicBool::new(false));
    let pausing = handler(&seen, move |_, _| {
        let pauses = first(&asked);
        async move {
            match pauses {
                true => Outcome::pause(Duration::from_secs(120), "bank down"),
                false => Outcome::done(),
            }
        }
    });
    let planned = planned_with("orders", pausing, |planned| {
        planned.ack = Ack::OnReceive;
        planned.handlers[0].retry = RetryPolicy::NONE;
    });
    let runner = world.run(planned).await;
    world.publish("orders", "x", &[]).await;
    tokio::time::sleep(Duration::from_secs(110)).await;
    assert_eq!(seen.take(), ["x#1"]);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(seen.take(), ["x#1"]);
    assert_eq!(runner.health().breaker, CircuitState::Closed);
    assert_eq!(world.metrics.sum(metrics::DEAD_LETTERED, &[]), 0.0);
}

#[tokio::test(start_paused = true)]
async fn what_is_acknowledged_and_waits_when_the_process_drains_is_lost_and_counted() {
    for batch in [None, Some(BatchOptions::new(1, Duration::from_millis(10)))] {
        let world = World::new().await;
        let seen = Seen::default();
        let pause = || Outcome::pause(Duration::from_secs(120), "bank down");
        let handler = match batch {
            Some(_) => batches(&seen, move |_| pause()),
            None => handler(&seen, move |_, _| async move { pause() }),
        };
        let planned = planned_with("orders", handler, |planned| {
            planned.ack = Ack::OnReceive;
            planned.batch = batch;
        });
        let runner = world.run(planned.clone()).await;
        world.publish("orders", "x", &[]).await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        let drained = runner.stop(Instant::now() + Duration::from_secs(5)).await;
        assert_eq!((seen.take().len(), drained.returned), (1, 0));
        assert_eq!(world.metrics.sum(metrics::DEAD_LETTERED, &[]), 1.0);
        assert!(world.dead_letters(&planned).await.is_empty());
    }
}

/// The broker counts it as done and sends on: without a place of its own, whatever comes would wait here.
#[tokio::test(start_paused = true)]
async fn what_is_acknowledged_and_waits_keeps_its_place() {
    for batch in [None, Some(BatchOptions::new(1, Duration::from_millis(10)))] {
        let world = World::new().await;
        let seen = Seen::default();
        let again = || Outcome::retry_after(Duration::from_secs(20), "away");
        let handler = match batch {
            Some(_) => batches(&seen, move |_| again()),
            None => handler(&seen, move |_, _| async move { again() }),
        };
        let planned = planned_with("orders", handler, |planned| {
            planned.ack = Ack::OnReceive;
            planned.concurrency = 2;
            planned.batch = batch;
        });
        let _runner = world.run(planned).await;
        for body in ["1", "2", "3", "4", "5"] {
            world.publish("orders", body, &[]).await;
        }
        // Two wait for their second attempt, and nobody else has begun.
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(seen.take().len(), 2, "batch: {batch:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_acknowledged_on_receipt_does_not_come_again_after_a_crash() {
    for batch in [None, Some(BatchOptions::new(2, Duration::from_millis(10)))] {
        let store = MemoryStore::new(MemoryOptions::for_tests(1));
        let seen = Seen::default();
        let hangs = || match batch {
            None => handler(&seen, |_, _| std::future::pending()),
            Some(_) => {
                let seen = seen.clone();
                Handler::batch(move |messages: Vec<Arc<Incoming>>, _| {
                    messages.iter().for_each(|incoming| seen.note(incoming));
                    std::future::pending()
                })
            }
        };
        let planned = || {
            planned_with("orders", hangs(), |planned| {
                planned.ack = Ack::OnReceive;
                planned.batch = batch;
            })
        };
        let first = World::on(&store, "one", |_| {}).await;
        let runner = first.run(planned()).await;
        first.publish("orders", "1", &[]).await;
        first.publish("orders", "2", &[]).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(seen.take().len(), 2);
        runner.abandon().await;
        store.kill("one");
        let second = World::on(&store, "two", |_| {}).await;
        let _runner = second.run(planned()).await;
        second.settled().await;
        assert!(seen.take().is_empty(), "batch: {batch:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_gauge_of_running_consumers_says_what_they_do() {
    let world = World::new().await;
    let seen = Seen::default();
    let pausing = handler(&seen, |incoming, _| async move {
        let pauses = incoming.redelivered || incoming.body.is_empty();
        match pauses {
            true => Outcome::done(),
            false => Outcome::pause(Duration::from_secs(30), "bank down"),
        }
    });
    let runner = world.run(planned("orders", pausing)).await;
    let running = async || {
        // Whoever measures gets its turn.
        tokio::time::sleep(Duration::from_millis(1)).await;
        world.metrics.sum(metrics::CONSUMER_RUNNING, &[])
    };
    assert_eq!(running().await, 1.0);
    world.store.faults().disconnect(Duration::from_secs(5));
    assert_eq!(running().await, 0.0);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(running().await, 1.0);
    runner.pause().await;
    assert_eq!(running().await, 0.0);
    runner.resume().await;
    assert_eq!(running().await, 1.0);
    // While the breaker is open nothing is fetched.
    world.publish("orders", "x", &[]).await;
    assert_eq!(running().await, 0.0);
    tokio::time::sleep(Duration::from_secs(40)).await;
    runner.stop(Instant::now() + Duration::from_secs(5)).await;
    assert_eq!(running().await, 0.0);
}
