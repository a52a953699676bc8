//! `TestApp` as a service's tests use it: every method, every assertion, and what a failure says.
#![cfg(all(feature = "testing", feature = "macros", feature = "json"))]
#![expect(
    clippy::unwrap_used,
    reason = "it is all tests, and the lint takes their helpers for something else"
)]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use interline::config::Config;
use interline::handling::PublishErrorKind;
use interline::messaging::CrashPoint;
use interline::observability::metrics;
use interline::prelude::*;
use interline::testing::TestApp;
use interline::{assert_dead_lettered, assert_not_published, assert_published};

interline::service!("billing");

#[derive(Debug, Message, Serialize, Deserialize)]
#[message(topic = "orders.placed", key = order_id, id = order_id)]
struct OrderPlaced {
    order_id: String,
    cents: u64,
}

#[derive(Debug, PartialEq, Message, Serialize, Deserialize)]
#[message(topic = "billing.charged", key = order_id, subscribers = optional)]
struct Charged {
    order_id: String,
    cents: u64,
}

#[derive(Debug, Message, Serialize, Deserialize)]
#[message(topic = "mail.sent", subscribers = optional)]
struct Sent {
    order_id: String,
}

#[derive(Debug, Failure)]
enum ChargeError {
    #[fate(dead_letter)]
    Nothing,
    #[fate(retry)]
    Unreachable,
}

impl std::fmt::Display for ChargeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Nothing => "nothing to charge",
            Self::Unreachable => "bank unreachable",
        })
    }
}

impl std::error::Error for ChargeError {}

/// What the handlers do and have seen.
#[derive(Clone, Default)]
struct World {
    failures: Arc<AtomicU32>,
    calls: Arc<Mutex<Vec<String>>>,
}

impl World {
    fn failing(times: u32) -> Self {
        let world = Self::default();
        world.failures.store(times, Ordering::SeqCst);
        world
    }

    fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }
}

#[subscriber(retry(attempts = 4, first = "1h", max = "1h"))]
async fn charge(
    order: OrderPlaced,
    world: State<World>,
    meta: Meta,
) -> Result<Charged, ChargeError> {
    let call = format!("charge {} #{}", order.order_id, meta.attempt());
    world.calls.lock().unwrap().push(call);
    if order.cents == 0 {
        return Err(ChargeError::Nothing);
    }
    let fails = |left: u32| left.checked_sub(1);
    let failures = &world.failures;
    if failures
        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, fails)
        .is_ok()
    {
        return Err(ChargeError::Unreachable);
    }
    Ok(Charged {
        order_id: order.order_id,
        cents: order.cents,
    })
}

#[subscriber]
async fn send_receipt(paid: Charged, world: State<World>) -> Sent {
    let call = format!("receipt {}", paid.order_id);
    world.calls.lock().unwrap().push(call);
    Sent {
        order_id: paid.order_id,
    }
}

/// Answers each `Ping` with another one, for ever.
#[derive(Message, Serialize, Deserialize)]
#[message(topic = "ping")]
struct Ping;

#[subscriber]
async fn echo(_ping: Ping) -> Ping {
    Ping
}

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "jobs")]
struct Job;

fn order(id: &str, cents: u64) -> OrderPlaced {
    OrderPlaced {
        order_id: id.into(),
        cents,
    }
}

async fn shop(world: &World) -> TestApp {
    TestApp::new()
        .register::<charge>()
        .register::<send_receipt>()
        .state(world.clone())
        .seed(7)
        .start()
        .await
}

/// The text of the panic of `test`.
async fn panic_of(test: impl Future<Output = ()> + Send + 'static) -> String {
    let panic = tokio::spawn(test).await.unwrap_err().into_panic();
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => (*panic.downcast::<&str>().expect("a panic with a text")).to_owned(),
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_app_publishes_is_found_by_type_by_field_and_by_predicate() {
    let world = World::default();
    let app = shop(&world).await;
    let id = app.publish(&order("1", 500)).await;
    assert_eq!(id.as_str(), "1");
    app.publish(Publish::new(order("2", 7)).header("x-tenant", "acme"))
        .await;
    let first = assert_published!(app, Charged);
    assert_eq!(first.order_id, "1");
    assert_published!(app, Charged { order_id: "2" });
    assert_published!(
        app,
        Charged {
            order_id: "2",
            cents: 7_u64,
            ..
        }
    );
    let found = assert_published!(app, |charged: &Charged| charged.cents < 100);
    assert_eq!(found.order_id, "2");
    assert_not_published!(app, Charged { order_id: "3", .. });
    assert_not_published!(app, |charged: &Charged| charged.cents > 500);
    assert_not_published!(app, Ping);

    assert_eq!(app.published::<Charged>().len(), 2);
    assert_eq!(app.published::<Sent>().len(), 2);
    assert!(app.published::<OrderPlaced>().is_empty(), "the test's own");
    let envelope = &app.envelopes::<Charged>()[0];
    assert_eq!(envelope.headers.text("causation-id").unwrap(), "1");
    assert_eq!(
        app.metrics()
            .sum(metrics::CONSUMED, &[("handler", "charge")]),
        2.0
    );

    app.publisher().publish(&order("4", 1)).await.unwrap();
    assert_published!(app, OrderPlaced { order_id: "4", .. });
}

#[tokio::test(start_paused = true)]
async fn raw_bytes_are_published_as_another_system_would() {
    let world = World::default();
    let app = shop(&world).await;
    let body = r#"{"order_id":"9","cents":3}"#;
    app.publish_raw("orders.placed", body, Headers::new()).await;
    assert_published!(
        app,
        Charged {
            order_id: "9",
            cents: 3_u64
        }
    );
    app.publish_raw("orders.placed", "no json", Headers::new())
        .await;
    assert_dead_lettered!(app, charge, reason = "decode");
}

#[tokio::test(start_paused = true)]
async fn dead_letters_are_found_by_reason() {
    let world = World::default();
    let app = shop(&world).await;
    assert!(app.dead_letters("charge").await.is_empty());
    app.publish(&order("1", 0)).await;
    assert_dead_lettered!(app, charge);
    let letter = assert_dead_lettered!(app, charge, reason = "rejected");
    assert_eq!(letter.error().unwrap(), "nothing to charge");
    assert_eq!(letter.attempts(), Some(1));
    assert_not_published!(app, Charged);
}

#[tokio::test(start_paused = true)]
async fn retries_after_hours_take_no_time() {
    let begun = Instant::now();
    let world = World::failing(3);
    let app = shop(&world).await;
    app.publish(&order("1", 5)).await;
    app.settle().await;
    assert_eq!(world.calls(), ["charge 1 #1"], "the retry is not due");
    app.advance(Duration::from_secs(1_000)).await;
    assert_eq!(world.calls().len(), 1, "the retry is not due yet");
    app.advance(Duration::from_secs(3_600)).await;
    assert_eq!(world.calls(), ["charge 1 #1", "charge 1 #2"]);
    assert_not_published!(app, Charged);
    app.settle_within(Duration::from_secs(3 * 3_600)).await;
    assert_eq!(
        world.calls(),
        [
            "charge 1 #1",
            "charge 1 #2",
            "charge 1 #3",
            "charge 1 #4",
            "receipt 1"
        ]
    );
    assert_published!(app, Charged);
    assert!(
        begun.elapsed() < Duration::from_secs(20),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn attempts_that_run_out_end_as_a_dead_letter() {
    let world = World::failing(10);
    let app = shop(&world).await;
    app.publish(&order("1", 5)).await;
    app.settle_within(Duration::from_secs(24 * 3_600)).await;
    let letter = assert_dead_lettered!(app, charge, reason = "retries_exhausted");
    assert_eq!(letter.attempts(), Some(4));
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_every_point_loses_nothing_and_repeats_with_the_same_ids() {
    let cases = [
        (CrashPoint::BeforeHandler, 1, 1),
        (CrashPoint::BeforeOutputs, 2, 1),
        (CrashPoint::BeforeSettlement, 2, 2),
        (CrashPoint::AfterSettlement, 1, 1),
    ];
    for (point, calls, outputs) in cases {
        let world = World::default();
        let app = TestApp::new()
            .register::<charge>()
            .state(world.clone())
            .start()
            .await;
        app.faults().crash_at(point, 1);
        app.publish(Publish::new(order("1", 5))).await;
        app.settle().await;
        assert!(!app.is_running(), "{point:?}");
        app.restart().await;
        app.settle().await;
        assert!(app.is_running());
        assert_eq!(world.calls().len(), calls, "{point:?}\n{}", app.timeline());
        let sent = app.envelopes::<Charged>();
        assert_eq!(sent.len(), outputs, "{point:?}\n{}", app.timeline());
        let ids: BTreeSet<_> = sent.iter().map(|sent| sent.id.clone()).collect();
        assert_eq!(ids.len(), 1, "{point:?}: the repeat has an id of its own");
        assert!(app.dead_letters("charge").await.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_crash_ends_handlers_where_they_are() {
    let world = World::default();
    let app = TestApp::new()
        .register::<slow>()
        .state(world.clone())
        .start()
        .await;
    app.publish(&Job).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    app.crash().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.calls(), ["begin"]);
    app.publish(&Job).await;
    app.settle().await;
    assert_eq!(world.calls(), ["begin"], "nobody is there");
    app.restart().await;
    app.settle().await;
    assert_eq!(
        world.calls().iter().filter(|call| *call == "end").count(),
        2
    );
}

#[subscriber]
async fn slow(_job: Job, world: State<World>) {
    world.calls.lock().unwrap().push("begin".into());
    tokio::time::sleep(Duration::from_secs(10)).await;
    world.calls.lock().unwrap().push("end".into());
}

#[tokio::test(start_paused = true)]
async fn stopping_in_order_finishes_what_runs() {
    let world = World::default();
    let app = TestApp::new()
        .register::<slow>()
        .state(world.clone())
        .start()
        .await;
    app.publish(&Job).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    app.stop().await;
    assert!(!app.is_running());
    assert_eq!(world.calls(), ["begin", "end"]);
    app.restart().await;
    app.restart().await;
    app.settle().await;
    assert_eq!(world.calls(), ["begin", "end"], "it was settled");
    assert!(app.manager().health().ready);
}

#[tokio::test(start_paused = true)]
async fn duplicates_and_lost_confirmations_are_scripted() {
    let world = World::default();
    let app = shop(&world).await;
    app.faults().duplicate(1);
    app.publish(&order("1", 5)).await;
    app.settle().await;
    assert_eq!(
        world
            .calls()
            .iter()
            .filter(|call| *call == "charge 1 #1")
            .count(),
        2
    );

    // The first lost confirmation is the test's own, the second one the app's.
    app.faults().lose_confirms(1);
    let lost = app.try_publish(&order("2", 5)).await.unwrap_err();
    assert_eq!(lost.kind(), PublishErrorKind::ChannelLost);
    app.settle().await;
    assert_published!(app, Charged { order_id: "2", .. });
}

#[tokio::test(start_paused = true)]
async fn a_lost_confirmation_of_an_output_is_a_failed_attempt_with_the_same_output() {
    let world = World::default();
    let app = shop(&world).await;
    app.pause("charge").await;
    app.publish(&order("1", 5)).await;
    app.settle().await;
    assert!(world.calls().is_empty());
    app.faults().lose_confirms(1);
    app.resume("charge").await;
    app.settle_within(Duration::from_secs(7_200)).await;
    let sent = app.envelopes::<Charged>();
    assert_eq!(sent.len(), 2, "{}", app.timeline());
    assert_eq!(sent[0].id, sent[1].id);
}

#[tokio::test(start_paused = true)]
async fn two_apps_do_not_see_each_other() {
    let (one, two) = (World::default(), World::default());
    let (first, second) = (shop(&one).await, shop(&two).await);
    first.publish(&order("1", 5)).await;
    second.settle().await;
    assert_published!(first, Charged);
    assert_not_published!(second, Charged);
    assert!(two.calls().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_run() {
    let mut runs = Vec::new();
    for _ in 0..2 {
        let world = World::failing(2);
        let app = shop(&world).await;
        app.publish_raw(
            "orders.placed",
            r#"{"order_id":"9","cents":3}"#,
            Headers::new(),
        )
        .await;
        app.settle_within(Duration::from_secs(24 * 3_600)).await;
        assert_eq!(app.seed(), 7);
        runs.push(app.timeline());
    }
    assert_eq!(runs[0], runs[1]);
}

#[tokio::test(start_paused = true)]
async fn every_configured_broker_is_embedded_and_settles() {
    let config = Config::new()
        .with("brokers.main.url", "amqp://nowhere.invalid")
        .with("brokers.audit.kind", "kafka")
        .with("routes.\"billing.*\"", "audit");
    let world = World::default();
    let app = TestApp::new()
        .register::<charge>()
        .register::<send_receipt>();
    let app = app.state(world.clone()).config(config).start().await;
    app.publish(&order("1", 5)).await;
    let charged = assert_published!(app, Charged);
    assert_eq!(charged.cents, 5);
    assert_eq!(&*app.envelopes::<Charged>()[0].origin.broker, "audit");
    assert_published!(app, Sent { order_id: "1" });
    app.faults_of("audit").nack(1);
    app.publish(&order("2", 5)).await;
    app.settle().await;
    assert_not_published!(app, Charged { order_id: "2", .. });
    app.settle_within(Duration::from_secs(7_200)).await;
    assert_published!(app, Charged { order_id: "2", .. });
}

#[tokio::test(start_paused = true)]
async fn the_wiring_is_tested_without_naming_handlers() {
    let error = TestApp::new()
        .with(service())
        .try_start()
        .await
        .unwrap_err();
    assert!(error.to_string().contains("State<World>"), "{error}");
    let report = TestApp::of(
        App::new(Config::new())
            .with(service())
            .state(World::default()),
    )
    .check()
    .unwrap();
    assert!(
        report.banner().contains("send_receipt"),
        "{}",
        report.banner()
    );
    let app = TestApp::new()
        .with(service())
        .state(World::default())
        .start()
        .await;
    app.publish(&order("1", 5)).await;
    assert_published!(app, Sent);
}

#[tokio::test]
async fn it_works_in_real_time_too_except_advance() {
    let world = World::default();
    let app = shop(&world).await;
    app.publish(&order("1", 5)).await;
    assert_published!(app, Sent);
    let text = panic_of(async move { app.advance(Duration::from_secs(1)).await }).await;
    assert!(text.contains("start_paused = true"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn messages_that_cause_each_other_for_ever_meet_a_limit() {
    let app = TestApp::new()
        .register::<echo>()
        .settle_limit(Duration::from_millis(200))
        .start()
        .await;
    app.publish(&Ping).await;
    let text = panic_of(async move { app.settle().await }).await;
    assert!(
        text.starts_with(
            "the app did not come to rest within 200ms of real time:\n  broker main: "
        ),
        "{text}"
    );
    assert!(text.contains("earlier events"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_failed_assertion_tells_what_happened_and_how_to_see_it_again() {
    let world = World::failing(1);
    let app = shop(&world).await;
    let other = order("2", 5);
    app.publish(&order("1", 5)).await;
    app.publish(&other).await;
    app.settle().await;
    let charged = app.envelopes::<Charged>()[0].id.clone();
    let sent = app.envelopes::<Sent>()[0].id.clone();
    let text = panic_of(async move {
        assert_published!(app, Charged { order_id: "1", .. });
    })
    .await;
    let expected = format!(
        "expected a published `Charged {{ order_id: \"1\", .. }}` (topic billing.charged)
published instead:
  billing.charged  Charged {{\"order_id\":\"2\",\"cents\":5}} (id {charged})
  mail.sent  Sent {{\"order_id\":\"2\"}} (id {sent})

timeline:
     0.000s  test connected
     0.000s  run-1 connected
     0.000s  #1 published orders.placed by test (id 1)
     0.000s  #1 billing.orders.placed -> run-1, attempt 1
     0.000s  #2 published orders.placed by test (id 2)
     0.000s  #2 billing.orders.placed -> run-1, attempt 1
     0.000s  #1 attempt 1 failed (error): bank unreachable
     0.000s  #1 to be retried after 1h in billing.orders.placed
     0.000s    #3 published billing.charged by run-1 (id {charged}, because of #2)
     0.000s    #3 billing.billing.charged -> run-1, attempt 1
     0.000s  #2 done in billing.orders.placed
     0.000s      #4 published mail.sent by run-1 (id {sent}, because of #3, no subscription)
     0.000s    #3 done in billing.billing.charged

seed 7; to replay: INTERLINE_TEST_SEED=7 cargo test \
         a_failed_assertion_tells_what_happened_and_how_to_see_it_again
"
    );
    assert_eq!(text, expected);

    let text = panic_of(failed(|app| async move {
        assert_not_published!(app, |charged: &Charged| charged.cents == 5);
    }))
    .await;
    assert!(
        text.starts_with(&format!(
            "expected no published `|charged: &Charged| charged.cents == 5` (topic \
             billing.charged)\npublished:\n  billing.charged  Charged \
             {{\"order_id\":\"2\",\"cents\":5}} (id {charged})\n\ntimeline:\n"
        )),
        "{text}"
    );
    let text = panic_of(failed(|app| async move {
        app.publish(&order("0", 0)).await;
        assert_dead_lettered!(app, charge, reason = "retries_exhausted");
    }))
    .await;
    let expected = "expected a dead letter of `charge` with reason `retries_exhausted`\n\
                    dead letters of `charge`:\n  rejected after 1 attempt: nothing to charge (id \
                    0)\n\ntimeline:\n";
    assert!(text.starts_with(expected), "{text}");
    let text = panic_of(failed(|app| async move {
        assert_dead_lettered!(app, send_receipt);
    }))
    .await;
    assert!(
        text.starts_with(
            "expected a dead letter of `send_receipt`\ndead letters of `send_receipt`: none\n"
        ),
        "{text}"
    );
}

/// A test that fails after the order `2` was charged.
async fn failed<F: Future<Output = ()>>(test: impl FnOnce(TestApp) -> F) {
    let app = shop(&World::default()).await;
    app.publish(&order("2", 5)).await;
    test(app).await;
}

#[tokio::test(start_paused = true)]
async fn a_publish_of_the_test_that_fails_says_why() {
    let app = shop(&World::default()).await;
    app.faults().nack(1);
    let text = panic_of(async move {
        app.publish(&order("1", 5)).await;
    })
    .await;
    assert!(
        text.starts_with("the test's own publish failed: "),
        "{text}"
    );
    assert!(
        text.contains("#1 refused orders.placed of test: nacked (id 1)"),
        "{text}"
    );

    let app = shop(&World::default()).await;
    let text = panic_of(async move { app.pause("charg").await }).await;
    assert_eq!(
        text,
        "no subscriber `charg` is running; did you mean `charge`?"
    );
}

/// Fails in every way there is.
#[subscriber(timeout = "1s", retry(attempts = 2, first = "5s", max = "5s"))]
async fn fragile(job: Task) {
    match job.kind.as_str() {
        "panic" => panic!("out of paper"),
        "slow" => tokio::time::sleep(Duration::from_secs(60)).await,
        _ => {}
    }
}

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "tasks", id = kind)]
struct Task {
    kind: String,
}

#[tokio::test(start_paused = true)]
async fn the_timeline_says_why_attempts_failed_and_when() {
    let app = TestApp::new().register::<fragile>().seed(1).start().await;
    app.publish(&Task {
        kind: "panic".into(),
    })
    .await;
    app.advance(Duration::from_secs(10)).await;
    app.publish(&Task {
        kind: "slow".into(),
    })
    .await;
    app.settle_within(Duration::from_secs(60)).await;
    let raw = app.publish_raw("tasks", "no json", Headers::new()).await;
    app.settle().await;
    let expected = format!(
        "     0.000s  test connected
     0.000s  run-1 connected
     0.000s  #1 published tasks by test (id panic)
     0.000s  #1 billing.tasks -> run-1, attempt 1
     0.000s  #1 attempt 1 failed (panic): out of paper
     0.000s  #1 to be retried after 5s in billing.tasks
     5.000s  #1 due again in billing.tasks
     5.000s  #1 billing.tasks -> run-1, attempt 2
     5.000s  #1 attempt 2 failed (panic): out of paper
     5.000s  #1 dead-lettered in billing.tasks
    10.000s  #2 published tasks by test (id slow)
    10.000s  #2 billing.tasks -> run-1, attempt 1
    11.000s  #2 attempt 1 failed (timeout): `fragile` took longer than 1s
    11.000s  #2 to be retried after 5s in billing.tasks
    16.000s  #2 due again in billing.tasks
    16.000s  #2 billing.tasks -> run-1, attempt 2
    17.000s  #2 attempt 2 failed (timeout): `fragile` took longer than 1s
    17.000s  #2 dead-lettered in billing.tasks
    17.000s  #3 published tasks by test (id {raw})
    17.000s  #3 billing.tasks -> run-1, attempt 1
    17.000s  #3 attempt 1 failed (decode): json: expected ident at line 1 column 2
    17.000s  #3 dead-lettered in billing.tasks
"
    );
    assert_eq!(app.timeline(), expected);
}

/// Counts what goes through it.
#[derive(Clone, Default)]
struct Counting(Arc<AtomicU32>);

impl interline::handling::Middleware for Counting {
    fn handle<'a>(
        &'a self,
        incoming: &'a mut interline::message::Incoming,
        next: interline::handling::Next<'a>,
    ) -> interline::handling::BoxFuture<'a, Outcome> {
        self.0.fetch_add(1, Ordering::SeqCst);
        next.run(incoming)
    }
}

#[tokio::test(start_paused = true)]
async fn what_an_app_takes_a_test_app_takes() {
    let counting = Counting::default();
    let app = TestApp::new()
        .subscribe("jobs.elsewhere", slow {})
        .state(World::default())
        .middleware(counting.clone())
        .config(Config::new().with("naming.prefix", "mine"))
        .start()
        .await;
    app.publish(Publish::new(Job).to("jobs.elsewhere")).await;
    app.settle().await;
    assert_eq!(counting.0.load(Ordering::SeqCst), 1, "{}", app.timeline());
    assert!(app.timeline().contains("mine"), "{}", app.timeline());
    app.restart().await;
    app.publish(Publish::new(Job).to("jobs.elsewhere")).await;
    app.settle().await;
    assert_eq!(counting.0.load(Ordering::SeqCst), 2, "{}", app.timeline());

    let silent = TestApp::new()
        .publish_only()
        .config(Config::new().with("service.name", "ticker"))
        .start()
        .await;
    let noted = Sent {
        order_id: "1".into(),
    };
    silent.publisher().publish(&noted).await.unwrap();
    assert_published!(silent, Sent { order_id: "1", .. });
    silent.restart().await;
    assert!(silent.is_running());
}
