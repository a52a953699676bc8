//! The engine on the embedded broker, in virtual time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::*;
use crate::clock::TokioClock;
use crate::handling::{
    Handler, Outcome, PublishErrorKind, PublishPort, Publisher, Reason, Scope, run_batch,
};
use crate::message::{Contract, Headers, Incoming, Location, TopicPattern, headers::name};
use crate::messaging::memory::{MemoryBroker, MemoryOptions, MemoryStore};
use crate::messaging::{
    Ack, BatchOptions, BrokerContext, CrashPoint, CrashPoints, DeadLetterStore, DeadLetters, Group,
    MessageBroker, OrderedBy, PlannedHandler, PlannedSubscription, Rate, Redrive, RetryPolicy,
    Subscription,
};
use crate::observability::metrics::{self, InMemoryMetrics};

const HERE: Location = Location {
    file: "tests.rs",
    line: 1,
    column: 1,
};
const HOUR: Duration = Duration::from_secs(3_600);

/// One process on a store.
struct World {
    store: MemoryStore,
    broker: Arc<MemoryBroker>,
    environment: Arc<Environment>,
    publishing: Arc<Publishing>,
    publisher: Publisher,
    metrics: InMemoryMetrics,
}

impl World {
    async fn new() -> Self {
        Self::on(
            &MemoryStore::new(MemoryOptions::for_tests(1)),
            "one",
            |_| {},
        )
        .await
    }

    async fn on(
        store: &MemoryStore,
        instance: &str,
        change: impl FnOnce(&mut Environment),
    ) -> Self {
        let broker = MemoryBroker::new(store, &BrokerContext::new("main", "billing", instance));
        let broker = Arc::new(broker);
        broker.connect().await.unwrap();
        let codecs = Arc::new(Codecs::built_in());
        let metrics = InMemoryMetrics::default();
        let codec = codecs.default_codec().unwrap().clone();
        let target = PublishTarget::new(Arc::clone(&broker) as _, BrokerLimits::default(), codec);
        let sink: Arc<dyn MetricsSink> = Arc::new(metrics.clone());
        let publishing = Publishing::new(
            vec![target],
            Routes::default(),
            Arc::clone(&codecs),
            Arc::new([]),
            Some(Arc::clone(&sink)),
        );
        let clock: Arc<dyn Clock> = Arc::new(TokioClock::starting_at(std::time::UNIX_EPOCH + HOUR));
        let rng = Rng::with_seed(1);
        let mut environment = Environment::new(
            codecs,
            Arc::clone(&clock),
            rng.clone(),
            Arc::clone(&publishing) as _,
        );
        environment.metrics = Some(sink);
        change(&mut environment);
        let port = Arc::clone(&publishing) as Arc<dyn PublishPort>;
        let publisher = Publisher::new(port, "billing".into(), clock, rng);
        let environment = Arc::new(environment);
        Self {
            store: store.clone(),
            broker,
            environment,
            publishing,
            publisher,
            metrics,
        }
    }

    async fn run(&self, planned: PlannedSubscription) -> Runner {
        let runner = Runner::start(
            planned,
            Arc::clone(&self.broker) as _,
            Arc::clone(&self.environment),
        );
        let runner = runner.await.unwrap();
        self.settled().await;
        runner
    }

    async fn publish(&self, topic: &str, body: &str, headers: &[(&'static str, &'static str)]) {
        let headers: Headers = headers.iter().copied().collect();
        self.publisher
            .publish_raw(topic, Bytes::copy_from_slice(body.as_bytes()), headers)
            .await
            .unwrap();
    }

    /// Waits until nothing more happens by itself within an hour.
    async fn settled(&self) {
        self.store.idle(Instant::now() + HOUR).await;
    }

    async fn dead_letters(&self, planned: &PlannedSubscription) -> Vec<Incoming> {
        let store: &dyn DeadLetterStore = self.broker.dead_letters().unwrap();
        store.list(&planned.subscription, 100).await.unwrap()
    }
}

fn planned(topic: &'static str, handler: Handler) -> PlannedSubscription {
    planned_with(topic, handler, |_| {})
}

fn planned_with(
    topic: &'static str,
    handler: Handler,
    change: impl FnOnce(&mut PlannedSubscription),
) -> PlannedSubscription {
    let subscription = Subscription::new(TopicPattern::new(topic), Group::Named("billing".into()));
    let mut planned = PlannedSubscription::new(Arc::new(subscription), "main".into());
    let codec = Codecs::built_in().default_codec().unwrap().clone();
    planned.handlers.push(PlannedHandler::new(
        "charge".into(),
        "billing".into(),
        handler,
        codec,
        HERE,
    ));
    change(&mut planned);
    planned
}

/// What handlers saw, in order: `body#attempt@milliseconds`.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<String>>>);

impl Seen {
    fn note(&self, incoming: &Incoming) {
        let body = String::from_utf8_lossy(&incoming.body).into_owned();
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(format!("{body}#{}", incoming.attempt));
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn handler<F, R>(seen: &Seen, run: F) -> Handler
where
    F: Fn(Arc<Incoming>, Scope) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Outcome> + Send + 'static,
{
    let seen = seen.clone();
    Handler::one(move |incoming, scope| {
        seen.note(&incoming);
        run(incoming, scope)
    })
}

fn answering(seen: &Seen, outcome: fn() -> Outcome) -> Handler {
    handler(seen, move |_, _| async move { outcome() })
}

#[tokio::test(start_paused = true)]
async fn each_fate_is_carried_out() {
    let world = World::new().await;
    let seen = Seen::default();
    type Case = (&'static str, fn() -> Outcome, usize, usize);
    let cases: [Case; 5] = [
        ("done", Outcome::done, 1, 0),
        ("discard", || Outcome::discard("no"), 1, 0),
        ("dead", || Outcome::dead_letter("never"), 1, 1),
        ("retry", || Outcome::retry("later"), 5, 1),
        (
            "after",
            || Outcome::retry_after(Duration::from_secs(7), "later"),
            5,
            1,
        ),
    ];
    for (topic, outcome, attempts, dead) in cases {
        let planned = planned(topic, answering(&seen, outcome));
        let runner = world.run(planned.clone()).await;
        world.publish(topic, "x", &[]).await;
        world.settled().await;
        assert_eq!(seen.take().len(), attempts, "{topic}");
        assert_eq!(world.dead_letters(&planned).await.len(), dead, "{topic}");
        assert_eq!(runner.health().in_flight, 0);
    }
    assert_eq!(
        world
            .metrics
            .sum(metrics::DEAD_LETTERED, &[("reason", "rejected")]),
        1.0
    );
    assert_eq!(
        world
            .metrics
            .sum(metrics::DEAD_LETTERED, &[("reason", "retries_exhausted")]),
        2.0
    );
    assert_eq!(world.metrics.sum(metrics::DISCARDED, &[]), 1.0);
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_is_the_original_with_the_reasons_beside_it() {
    let world = World::new().await;
    let seen = Seen::default();
    let planned = planned(
        "orders",
        answering(&seen, || Outcome::retry("bank unreachable")),
    );
    let _runner = world.run(planned.clone()).await;
    world
        .publish(
            "orders",
            "\u{0}bytes",
            &[("x-own", "kept"), (name::MESSAGE_ID, "m-1")],
        )
        .await;
    world.settled().await;
    let dead = world.dead_letters(&planned).await;
    let [dead] = dead.as_slice() else {
        panic!("one dead letter, not {}", dead.len())
    };
    assert_eq!(&dead.body[..], b"\0bytes");
    let header = |name: &str| dead.headers.text(name).map(|text| text.into_owned());
    assert_eq!(header("x-own").as_deref(), Some("kept"));
    assert_eq!(header(name::MESSAGE_ID).as_deref(), Some("m-1"));
    assert_eq!(
        header(name::DLQ_REASON).as_deref(),
        Some("retries_exhausted")
    );
    assert_eq!(header(name::DLQ_ERROR).as_deref(), Some("bank unreachable"));
    assert_eq!(header(name::DLQ_ATTEMPTS).as_deref(), Some("5"));
    assert_eq!(header(name::DLQ_HANDLER).as_deref(), Some("charge"));
    assert_eq!(header(name::DLQ_SERVICE).as_deref(), Some("billing"));
    assert_eq!(header(name::DLQ_GROUP).as_deref(), Some("billing"));
    assert_eq!(header(name::DLQ_TOPIC).as_deref(), Some("orders"));
    let first = header(name::DLQ_FIRST_FAILED_AT).unwrap();
    assert!(first < header(name::DLQ_FAILED_AT).unwrap(), "{first}");
    assert!(header(name::DLQ_ORIGIN).unwrap().starts_with("main:"));
}

#[tokio::test(start_paused = true)]
async fn waits_follow_the_policy_and_long_ones_are_exact() {
    let world = World::new().await;
    let times: Arc<Mutex<Vec<Duration>>> = Arc::default();
    let start = Instant::now();
    let noted = Arc::clone(&times);
    let handler = Handler::one(move |_, _| {
        let noted = Arc::clone(&noted);
        async move {
            noted
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(start.elapsed());
            Outcome::retry("no")
        }
    });
    let planned = planned_with("orders", handler, |planned| {
        planned.handlers[0].retry = RetryPolicy {
            attempts: 4,
            first: Duration::from_millis(500),
            max: 3 * HOUR,
            factor: 10_000.0,
        };
    });
    let _runner = world.run(planned.clone()).await;
    world.publish("orders", "x", &[]).await;
    world.store.idle(Instant::now() + 100 * HOUR).await;
    let times = times.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let waits: Vec<_> = times
        .windows(2)
        .map(|pair| (pair[1] - pair[0]).as_secs_f64())
        .collect();
    assert_eq!(waits.len(), 3, "{waits:?}");
    // 500 ms with jitter, in the process.
    assert!((0.4..=0.51).contains(&waits[0]), "{waits:?}");
    // 5 000 s is beyond the ladder's last step of an hour: the rest is waited on the second round.
    assert!((4_000.0 - 6.0..=7_300.0).contains(&waits[1]), "{waits:?}");
    assert!(
        (3.0 * 3_600.0 * 0.8 - 6.0..=4.1 * 3_600.0).contains(&waits[2]),
        "{waits:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn panics_and_timeouts_are_failed_attempts() {
    let world = World::new().await;
    let seen = Seen::default();
    let panicking = planned(
        "panics",
        handler(&seen, |_, _| async { panic!("boom {}", 1) }),
    );
    let hanging = planned("hangs", handler(&seen, |_, _| std::future::pending()));
    let _runners = [
        world.run(panicking.clone()).await,
        world.run(hanging.clone()).await,
    ];
    world.publish("panics", "p", &[]).await;
    world.publish("hangs", "h", &[]).await;
    world.settled().await;
    assert_eq!(seen.take().len(), 10);
    for (planned, reason, text) in [
        (&panicking, "panic", "boom 1"),
        (&hanging, "timeout", "`charge` took longer than 30s"),
    ] {
        let dead = world.dead_letters(planned).await;
        assert_eq!(
            dead[0].headers.text(name::DLQ_REASON).as_deref(),
            Some(reason)
        );
        assert_eq!(dead[0].headers.text(name::DLQ_ERROR).as_deref(), Some(text));
    }
}

#[tokio::test(start_paused = true)]
async fn messages_of_one_key_stay_in_order_while_one_of_them_fails() {
    let world = World::new().await;
    let seen = Seen::default();
    let failing = handler(&seen, |incoming, _| async move {
        let fails = &incoming.body[..] == b"a2" && incoming.attempt < 4;
        if fails {
            Outcome::retry("not yet")
        } else {
            Outcome::done()
        }
    });
    let planned = planned_with("orders", failing, |planned| {
        planned.ordered_by = Some(OrderedBy::Key);
        planned.concurrency = 8;
        Arc::make_mut(&mut planned.subscription).ordered_by = Some(OrderedBy::Key);
    });
    let _runner = world.run(planned).await;
    assert_ne!(
        dispatcher::lane_of(Some("a"), 8),
        dispatcher::lane_of(Some("c"), 8)
    );
    for number in 1..=4 {
        world
            .publish("orders", &format!("a{number}"), &[(name::MESSAGE_KEY, "a")])
            .await;
        world
            .publish("orders", &format!("b{number}"), &[(name::MESSAGE_KEY, "c")])
            .await;
    }
    world.settled().await;
    let seen = seen.take();
    let of = |key: char| {
        seen.iter()
            .filter(|one| one.starts_with(key))
            .cloned()
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(of('a'), "a1#1 a2#1 a2#2 a2#3 a2#4 a3#1 a4#1");
    assert_eq!(of('b'), "b1#1 b2#1 b3#1 b4#1");
    let last_b = seen.iter().position(|one| one == "b4#1");
    assert!(
        last_b < seen.iter().position(|one| one == "a2#2"),
        "lane b waited: {seen:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn concurrency_is_bounded_and_a_waiting_retry_leaves_its_place() {
    let world = World::new().await;
    let running: Arc<AtomicUsize> = Arc::default();
    let most: Arc<AtomicUsize> = Arc::default();
    let (now, peak) = (Arc::clone(&running), Arc::clone(&most));
    let handler = Handler::one(move |incoming, _| {
        let (now, peak) = (Arc::clone(&now), Arc::clone(&peak));
        async move {
            peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(10)).await;
            now.fetch_sub(1, Ordering::SeqCst);
            if incoming.attempt == 1 {
                Outcome::retry("once")
            } else {
                Outcome::done()
            }
        }
    });
    let planned = planned_with("orders", handler, |planned| planned.concurrency = 3);
    let _runner = world.run(planned).await;
    for _ in 0..20 {
        world.publish("orders", "x", &[]).await;
    }
    world.settled().await;
    assert_eq!(most.load(Ordering::SeqCst), 3);
    assert_eq!(world.metrics.sum(metrics::CONSUMED, &[]), 40.0);
    assert_eq!(world.metrics.sum(metrics::IN_FLIGHT, &[]), 0.0);
}

fn batch_handler(sizes: &Arc<Mutex<Vec<String>>>) -> Handler {
    let sizes = Arc::clone(sizes);
    Handler::batch(move |messages, scope| {
        let sizes = Arc::clone(&sizes);
        async move {
            let bodies: Vec<_> = messages
                .iter()
                .map(|one| String::from_utf8_lossy(&one.body).into_owned())
                .collect();
            sizes
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(bodies.join(","));
            let read = |one: &Arc<Incoming>| Ok((one.body.clone(), one.attempt));
            run_batch(messages.clone(), &scope, read, |batch| async move {
                let bad: Vec<_> = batch
                    .payloads()
                    .enumerate()
                    .filter(|(_, (body, attempt))| body.starts_with(b"bad") && *attempt == 1)
                    .map(|(at, _)| at)
                    .collect();
                batch.all_done_except(bad, &Outcome::retry("bad"))
            })
            .await
        }
    })
}

#[tokio::test(start_paused = true)]
async fn batches_form_by_size_or_time_and_only_the_failed_are_repeated() {
    let world = World::new().await;
    let sizes = Arc::default();
    let planned = planned_with("orders", batch_handler(&sizes), |planned| {
        planned.batch = Some(BatchOptions::new(3, Duration::from_secs(1)));
        planned.concurrency = 1;
    });
    let _runner = world.run(planned.clone()).await;
    for body in ["1", "bad2", "3", "4"] {
        world.publish("orders", body, &[]).await;
    }
    world.settled().await;
    let mut sizes = sizes.lock().unwrap_or_else(PoisonError::into_inner).clone();
    sizes.sort();
    assert_eq!(sizes, ["1,bad2,3", "4", "bad2"]);
    assert!(world.dead_letters(&planned).await.is_empty());
}

const PLACED: &Contract = &Contract::new("Placed", "orders", HERE);
const GONE: &Contract = &Contract::new("Gone", "orders", HERE);

#[tokio::test(start_paused = true)]
async fn handlers_of_one_subscription_are_chosen_by_type_and_the_unknown_is_given_up() {
    let world = World::new().await;
    let (placed, gone) = (Seen::default(), Seen::default());
    let planned = planned_with("orders", answering(&placed, Outcome::done), |planned| {
        planned.handlers[0].contracts = vec![PLACED];
        let mut other = planned.handlers[0].clone();
        other.name = "undo".into();
        other.contracts = vec![GONE];
        other.handler = answering(&gone, Outcome::done);
        planned.handlers.push(other);
    });
    let _runner = world.run(planned.clone()).await;
    world
        .publish("orders", "p", &[(name::MESSAGE_TYPE, "Placed")])
        .await;
    world
        .publish("orders", "g", &[(name::MESSAGE_TYPE, "Gone")])
        .await;
    world
        .publish("orders", "u", &[(name::MESSAGE_TYPE, "Unheard")])
        .await;
    world.publish("orders", "n", &[]).await;
    world.settled().await;
    assert_eq!(
        (placed.take(), gone.take()),
        (vec!["p#1".to_owned()], vec!["g#1".to_owned()])
    );
    let dead = world.dead_letters(&planned).await;
    assert_eq!(dead.len(), 2);
    assert_eq!(
        dead[0].headers.text(name::DLQ_REASON).as_deref(),
        Some("no_handler")
    );
    assert_eq!(
        dead[0].headers.text(name::DLQ_ERROR).as_deref(),
        Some("no handler takes messages of type `Unheard`")
    );
}

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

#[tokio::test(start_paused = true)]
async fn pausing_by_hand_and_by_fate_stops_the_start_of_messages() {
    let world = World::new().await;
    let seen = Seen::default();
    let tries: Arc<AtomicUsize> = Arc::default();
    let counted = Arc::clone(&tries);
    let pausing = handler(&seen, move |incoming, _| {
        let first = counted.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            let pauses = first && &incoming.body[..] == b"down";
            if pauses {
                Outcome::pause(Duration::from_secs(30), "bank down")
            } else {
                Outcome::done()
            }
        }
    });
    let runner = world.run(planned("orders", pausing)).await;
    world.publish("orders", "down", &[]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.publish("orders", "later", &[]).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(seen.take(), ["down#1"]);
    world.settled().await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    world.settled().await;
    let mut after = seen.take();
    after.sort();
    // The pause is no attempt: the message comes again as the first one.
    assert_eq!(after, ["down#1", "later#1"]);

    runner.pause().await;
    world.publish("orders", "held", &[]).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(seen.take().is_empty());
    runner.resume().await;
    world.settled().await;
    assert_eq!(seen.take(), ["held#1"]);
}

#[tokio::test(start_paused = true)]
async fn a_rate_spaces_the_starts() {
    let world = World::new().await;
    let seen = Seen::default();
    let planned = planned_with("orders", answering(&seen, Outcome::done), |planned| {
        planned.rate = Some(Rate::new(1, Duration::from_secs(1)));
    });
    let _runner = world.run(planned).await;
    let start = Instant::now();
    for _ in 0..5 {
        world.publish("orders", "x", &[]).await;
    }
    world.settled().await;
    assert_eq!(seen.take().len(), 5);
    assert!(
        start.elapsed() >= Duration::from_secs(4),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn acknowledging_on_receipt_loses_what_fails_and_says_so() {
    let world = World::new().await;
    let seen = Seen::default();
    let planned = planned_with(
        "orders",
        answering(&seen, || Outcome::dead_letter("no")),
        |planned| {
            planned.ack = Ack::OnReceive;
            planned.handlers[0].retry = RetryPolicy::NONE;
        },
    );
    let _runner = world.run(planned.clone()).await;
    world.publish("orders", "x", &[]).await;
    world.settled().await;
    assert_eq!(seen.take(), ["x#1"]);
    assert!(world.dead_letters(&planned).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_output_that_nobody_takes_is_a_failed_attempt_with_its_reason() {
    let world = World::new().await;
    let seen = Seen::default();
    let sending = handler(&seen, |incoming, scope| async move {
        let id = incoming.id.derive("charge", 0);
        let mut outgoing = crate::message::Outgoing::new("nowhere", id, Bytes::from_static(b"y"));
        outgoing
            .headers
            .set(name::SENDER, scope.publisher().service().to_owned());
        let mut outcome = Outcome::done();
        outcome.outgoing.push(outgoing);
        outcome
    });
    let planned = planned("orders", sending);
    let _runner = world.run(planned.clone()).await;
    world.publish("orders", "x", &[]).await;
    world.settled().await;
    assert_eq!(seen.take().len(), 5);
    let dead = world.dead_letters(&planned).await;
    let reason = dead[0].headers.text(name::DLQ_REASON);
    assert_eq!(reason.as_deref(), Some(Reason::OutputUnroutable.as_str()));
}

#[tokio::test(start_paused = true)]
async fn lost_confirms_and_refusals_are_told_apart_and_can_be_sent_again() {
    let world = World::new().await;
    let seen = Seen::default();
    let _runner = world
        .run(planned("orders", answering(&seen, Outcome::done)))
        .await;
    let publish = || world.publisher.publish_raw("orders", "x", Headers::new());
    world.store.faults().lose_confirms(1);
    let error = publish().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.is_unknown()),
        (PublishErrorKind::ChannelLost, true)
    );
    let id = world
        .publisher
        .resend(error.into_outgoing().unwrap())
        .await
        .unwrap()
        .id;
    world.store.faults().nack(1);
    let error = publish().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.is_unknown()),
        (PublishErrorKind::Nacked, false)
    );
    world.settled().await;
    assert_eq!(seen.take().len(), 2, "the unknown one and its repeat, {id}");
    let unroutable = world
        .publisher
        .publish_raw("nobody", "x", Headers::new())
        .await
        .unwrap_err();
    assert_eq!(unroutable.kind(), PublishErrorKind::Unroutable);
    let bad = world
        .publisher
        .publish_raw("no body", "x", Headers::new())
        .await
        .unwrap_err();
    assert_eq!(bad.kind(), PublishErrorKind::Topic);
    let large = vec![0_u8; 16 * 1024 * 1024 + 1];
    let large = world
        .publisher
        .publish_raw("orders", large, Headers::new())
        .await
        .unwrap_err();
    assert_eq!(large.kind(), PublishErrorKind::TooLarge);
    assert!(world.publishing.close(Instant::now()).await);
    assert_eq!(
        publish().await.unwrap_err().kind(),
        PublishErrorKind::Closed
    );
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

#[tokio::test(start_paused = true)]
async fn dead_letters_go_back_to_their_own_subscription_as_first_attempts() {
    let world = World::new().await;
    let seen = Seen::default();
    let broken: Arc<AtomicUsize> = Arc::new(AtomicUsize::new(1));
    let switch = Arc::clone(&broken);
    let handler = handler(&seen, move |_, _| {
        let fails = switch.load(Ordering::SeqCst) == 1;
        async move {
            if fails {
                Outcome::dead_letter("closed")
            } else {
                Outcome::done()
            }
        }
    });
    let planned = planned("orders", handler);
    let _runner = world.run(planned.clone()).await;
    let other = Seen::default();
    let bystander = planned_with("orders", answering(&other, Outcome::done), |planned| {
        let group = Group::Named("mail".into());
        planned.subscription = Arc::new(Subscription::new(TopicPattern::new("orders"), group));
    });
    let _other = world.run(bystander).await;
    for id in ["m-1", "m-2", "m-3"] {
        world
            .publish("orders", id, &[(name::MESSAGE_ID, id), ("x-own", "kept")])
            .await;
    }
    world.settled().await;
    assert_eq!((seen.take().len(), other.take().len()), (3, 3));

    broken.store(0, Ordering::SeqCst);
    let broker = Arc::clone(&world.broker) as Arc<dyn MessageBroker>;
    let letters = DeadLetters::new(broker, Arc::clone(&planned.subscription));
    assert_eq!(letters.list(2).await.unwrap().len(), 2);
    let id = crate::message::MessageId::parse("m-2").unwrap();
    let shown = letters.show(&id, 10).await.unwrap().unwrap();
    assert_eq!((&*shown.reason(), shown.attempts()), ("rejected", Some(1)));
    let one = || Redrive::new().matching(|letter| letter.id().as_str() == "m-2");
    assert_eq!(letters.redrive(&one().dry_run()).await.unwrap(), 1);
    assert_eq!(letters.list(10).await.unwrap().len(), 3);
    assert_eq!(letters.redrive(&one()).await.unwrap(), 1);
    world.settled().await;
    assert_eq!(seen.take(), ["m-2#1"]);
    let slowly = Redrive::new().rate(1, Duration::from_secs(1)).limit(1);
    assert_eq!(letters.redrive(&slowly).await.unwrap(), 1);
    world.settled().await;
    assert_eq!(seen.take(), ["m-1#1"]);
    assert_eq!(
        letters
            .purge(10, |letter| letter.reason() == "timeout")
            .await
            .unwrap(),
        0
    );
    assert_eq!(letters.purge(10, |_| true).await.unwrap(), 1);
    assert!(letters.list(10).await.unwrap().is_empty());
    assert!(
        other.take().is_empty(),
        "another group saw the message again"
    );
}
