//! What a subscriber of `tracing` sees of a message: one span for each publish and each attempt.
#![cfg(all(feature = "macros", feature = "memory", feature = "json"))]

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use interline::prelude::*;
use tokio::sync::mpsc;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::DefaultGuard;
use tracing::{Level, Subscriber, level_filters::LevelFilter};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

interline::service!("billing");

const SOON: Duration = Duration::from_secs(10);
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";
/// What stands in bodies, errors and headers, and must stand in no span.
const SECRET: &str = "hunter2";

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "orders.{region}.placed", key = order_id)]
struct OrderPlaced {
    order_id: String,
    region: String,
    note: String,
}

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "billing.charged", key = order_id)]
struct Charged {
    order_id: String,
}

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "billing.unheard")]
struct Unheard {}

#[derive(Debug, thiserror::Error, Failure)]
enum ChargeError {
    #[error("the card {0} was refused")]
    #[fate(dead_letter)]
    Refused(String),
}

struct Desk(mpsc::Sender<()>);

#[subscriber]
async fn charge(order: OrderPlaced) -> Result<Charged, ChargeError> {
    match &*order.order_id {
        "refused" => Err(ChargeError::Refused(order.note)),
        "panics" => panic!("{}", order.note),
        _ => Ok(Charged {
            order_id: order.order_id,
        }),
    }
}

#[subscriber]
async fn receipt(_: Charged, desk: State<Desk>) {
    let _ = desk.0.send(()).await;
}

/// One span, as it was when it closed.
#[derive(Clone, Debug, Default)]
struct Seen {
    name: &'static str,
    fields: BTreeMap<&'static str, String>,
    parent: Option<u64>,
    id: u64,
}

impl Seen {
    fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", |value| value)
    }
}

impl Visit for Seen {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.fields.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.insert(field.name(), value.to_owned());
    }
}

/// Collects the spans of Interline, those that are still open included.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Seen>>>);

impl Collector {
    fn listen(&self, most: LevelFilter) -> DefaultGuard {
        let layer = self.clone().with_filter(most);
        tracing::subscriber::set_default(tracing_subscriber::registry().with(layer))
    }

    fn all(&self) -> Vec<Seen> {
        self.0.lock().expect("nobody panicked with it").clone()
    }

    /// The only span of this name (`otel.name`) for a message that the test knows.
    fn one(&self, name: &str) -> Seen {
        let mut found = self.all();
        found.retain(|seen| seen.field("otel.name") == name);
        assert_eq!(found.len(), 1, "spans called `{name}` in {:#?}", self.all());
        found.remove(0)
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Collector {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if !attributes.metadata().target().starts_with("interline") {
            return;
        }
        let mut seen = Seen {
            name: attributes.metadata().name(),
            id: id.into_u64(),
            ..Seen::default()
        };
        assert_eq!(*attributes.metadata().level(), Level::INFO);
        let parent = context.span(id).and_then(|span| span.parent());
        seen.parent = parent.map(|parent| parent.id().into_u64());
        attributes.record(&mut seen);
        self.0.lock().expect("nobody panicked with it").push(seen);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, _: Context<'_, S>) {
        let mut all = self.0.lock().expect("nobody panicked with it");
        if let Some(seen) = all.iter_mut().rfind(|seen| seen.id == id.into_u64()) {
            values.record(seen);
        }
    }
}

struct Stage {
    running: Running,
    receipts: mpsc::Receiver<()>,
}

impl Stage {
    async fn start() -> Self {
        let (sender, receipts) = mpsc::channel(4);
        let app = App::new(Config::new()).with(service()).state(Desk(sender));
        let running = app.launch().await.expect("a sound wiring");
        running
            .ready(SOON)
            .await
            .expect("an app that becomes ready");
        Self { running, receipts }
    }

    async fn publish(&self, order_id: &str) -> Result<(), PublishError> {
        let order = OrderPlaced {
            order_id: order_id.to_owned(),
            region: "eu".to_owned(),
            note: SECRET.to_owned(),
        };
        let message = Publish::new(order)
            .header("traceparent", format!("00-{TRACE}-{PARENT}-01"))
            .header("correlation-id", "order-7")
            .header("authorization", SECRET);
        self.running.publisher().publish(message).await.map(drop)
    }

    /// Waits until nothing is in the hands of a handler.
    async fn end(self) {
        self.running.stop_within(SOON).await;
    }
}

#[tokio::test]
async fn each_publish_and_each_attempt_is_a_span_in_the_trace_of_its_message() {
    let collector = Collector::default();
    let _listening = collector.listen(LevelFilter::INFO);
    let mut stage = Stage::start().await;
    stage.publish("1").await.unwrap();
    stage.receipts.recv().await.unwrap();
    stage.end().await;

    let published = collector.one("publish orders.{region}.placed");
    assert_eq!(published.name, "publish");
    assert_eq!(published.field("otel.kind"), "producer");
    assert_eq!(
        published.field("messaging.destination.name"),
        "orders.eu.placed"
    );
    assert_eq!(published.field("trace_id"), TRACE);
    assert_eq!(
        published.field("messaging.message.conversation_id"),
        "order-7"
    );
    assert_eq!(published.parent, None);

    let charge = collector.one("process orders.{region}.placed");
    assert_eq!(charge.name, "process");
    assert_eq!(charge.field("otel.kind"), "consumer");
    assert_eq!(charge.field("subscriber"), "charge");
    assert_eq!(charge.field("attempt"), "1");
    assert_eq!(charge.field("trace_id"), TRACE);
    assert_eq!(charge.field("parent_span_id"), PARENT);
    assert_eq!(charge.field("messaging.message.conversation_id"), "order-7");
    assert_eq!(
        charge.field("messaging.message.id"),
        published.field("messaging.message.id")
    );
    assert_eq!(charge.field("error.type"), "");

    // The output is part of the attempt, and hands its trace and correlation on.
    let output = collector.one("publish billing.charged");
    assert_eq!(output.parent, Some(charge.id));
    assert_eq!(output.field("trace_id"), TRACE);
    assert_eq!(output.field("messaging.message.conversation_id"), "order-7");
    let receipt = collector.one("process billing.charged");
    assert_eq!(receipt.field("trace_id"), TRACE);
    assert_eq!(receipt.field("parent_span_id"), charge.field("span_id"));
    assert_eq!(
        receipt.field("messaging.message.conversation_id"),
        "order-7"
    );
    assert_eq!(collector.all().len(), 4, "{:#?}", collector.all());
    nothing_secret(&collector);
}

#[tokio::test]
async fn a_failure_is_noted_by_its_type_and_never_by_its_text() {
    let collector = Collector::default();
    let _listening = collector.listen(LevelFilter::INFO);
    let stage = Stage::start().await;
    stage.publish("refused").await.unwrap();
    let error = stage.running.publisher().publish(&Unheard {}).await;
    assert!(error.is_err());
    stage.end().await;

    let failed = collector.one("process orders.{region}.placed");
    assert_eq!(failed.field("error.type"), "ChargeError::Refused");
    assert_eq!(failed.field("otel.status_code"), "ERROR");
    let unheard = collector.one("publish billing.unheard");
    assert_eq!(unheard.field("error.type"), "unroutable");
    assert_eq!(unheard.field("otel.status_code"), "ERROR");
    nothing_secret(&collector);
}

#[tokio::test]
async fn a_panic_is_noted_too() {
    let collector = Collector::default();
    let _listening = collector.listen(LevelFilter::INFO);
    let stage = Stage::start().await;
    stage.publish("panics").await.unwrap();
    stage.end().await;
    let all = collector.all();
    let attempts: Vec<_> = all.iter().filter(|seen| seen.name == "process").collect();
    assert!(!attempts.is_empty());
    for (number, attempt) in (1..).zip(attempts) {
        assert_eq!(attempt.field("error.type"), "panic");
        assert_eq!(attempt.field("attempt"), number.to_string());
    }
    nothing_secret(&collector);
}

#[tokio::test]
async fn nobody_who_listens_for_less_is_given_a_span() {
    let collector = Collector::default();
    let _listening = collector.listen(LevelFilter::WARN);
    let mut stage = Stage::start().await;
    stage.publish("1").await.unwrap();
    stage.receipts.recv().await.unwrap();
    stage.end().await;
    assert!(collector.all().is_empty(), "{:#?}", collector.all());
}

fn nothing_secret(collector: &Collector) {
    let all = format!("{:?}", collector.all());
    assert!(!all.contains(SECRET), "{all}");
}
