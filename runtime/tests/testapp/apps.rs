//! What is published, by the app and by the test; apps side by side.

use super::*;

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
