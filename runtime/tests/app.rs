//! An app as a user writes it: attributes, `App`, the embedded broker, from the linked registry.
#![cfg(all(feature = "macros", feature = "memory", feature = "json"))]

use std::time::Duration;

use interline::prelude::*;
use tokio::sync::mpsc;

interline::service!("billing");

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "orders.placed", key = order_id)]
struct OrderPlaced {
    order_id: String,
}

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "billing.charged", key = order_id)]
struct Charged {
    order_id: String,
}

struct Desk(mpsc::Sender<String>);

#[subscriber]
async fn charge(order: OrderPlaced) -> Charged {
    Charged {
        order_id: order.order_id,
    }
}

#[subscriber(concurrency = 4)]
async fn receipt(paid: Charged, desk: State<Desk>) {
    let _ = desk.0.send(paid.order_id).await;
}

const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn what_is_linked_and_admitted_runs() -> interline::Result<()> {
    let (sender, mut receipts) = mpsc::channel(4);
    let app = App::new(Config::new()).with(service()).state(Desk(sender));
    let report = runtime::check(&app)?;
    let names: Vec<_> = report.handlers.iter().map(|(name, _)| &**name).collect();
    assert_eq!(names, ["receipt", "charge"]);
    assert!(report.warnings.is_empty(), "{report}");

    let running = app.launch().await?;
    running.ready(SOON).await?;
    let order_id = "7".to_owned();
    running
        .publisher()
        .publish(&OrderPlaced { order_id })
        .await?;
    assert_eq!(receipts.recv().await.as_deref(), Some("7"));
    running.stop_within(SOON).await;
    Ok(())
}

#[tokio::test]
async fn what_is_linked_and_not_admitted_does_not_run() {
    let error = App::new(Config::new()).launch().await.unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("nothing to run; linked: crate `app` (2 subscribers, not admitted)"),
        "{text}"
    );
}

#[tokio::test]
async fn subscribers_are_registered_by_name_and_put_on_topics_known_at_run_time() {
    let (sender, mut receipts) = mpsc::channel(4);
    let app = App::new(Config::new())
        .named_only()
        .register::<receipt>()
        .subscribe("tenants.acme.charged", receipt {})
        .state(Desk(sender));
    let running = app.launch().await.unwrap();
    running.ready(SOON).await.unwrap();
    for topic in ["billing.charged", "tenants.acme.charged"] {
        let order_id = topic.to_owned();
        let message = Publish::new(Charged { order_id }).to(topic);
        running.publisher().publish(message).await.unwrap();
        assert_eq!(receipts.recv().await.as_deref(), Some(topic));
    }
    running.stop_within(SOON).await;
}
