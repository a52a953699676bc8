//! Attempts, fates and their reasons.

use super::*;

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
