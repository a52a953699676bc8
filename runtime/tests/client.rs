//! `#[service_client]` as a program uses it, without a server.
#![cfg(all(feature = "http", feature = "macros", feature = "testing"))]

use std::sync::atomic::{AtomicU32, Ordering};

use interline::http::{Problem, Response, ServiceClient, Verb};
use interline::prelude::*;
use interline::testing::TestApp;

interline::service!("billing");

/// An order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Order {
    id: String,
    lines: u32,
}

/// An error of the program's own.
#[derive(Debug, thiserror::Error)]
pub enum OrdersError {
    /// The call failed.
    #[error("orders: {0}")]
    Call(#[from] CallError),
}

/// The orders.
#[service_client(
    service = "orders",
    base = "/api/v1",
    timeout = "2s",
    retry(attempts = 5)
)]
pub trait Orders {
    /// One order.
    #[get("/orders/{id}")]
    async fn order(&self, id: &str) -> Result<Option<Order>, CallError>;

    /// All orders.
    #[get("/orders")]
    #[timeout("250ms")]
    async fn list(
        &self,
        #[query] page: Option<u32>,
        #[header("x-tenant")] tenant: Option<&str>,
    ) -> Result<Response<Vec<Order>>, OrdersError>;

    /// Places an order.
    #[post("/orders")]
    #[idempotent]
    #[retry(attempts = 2, first = "10ms")]
    async fn place(&self, #[body] order: &Order) -> Result<(), CallError<Problem>>;
}

#[derive(Default)]
struct Fake {
    asked: AtomicU32,
}

impl Orders for Fake {
    async fn order(&self, id: &str) -> Result<Option<Order>, CallError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let id = id.to_owned();
        Ok((id != "none").then_some(Order { id, lines: 3 }))
    }

    async fn list(
        &self,
        _: Option<u32>,
        _: Option<&str>,
    ) -> Result<Response<Vec<Order>>, OrdersError> {
        Ok(Response::new(Vec::new()))
    }

    async fn place(&self, _: &Order) -> Result<(), CallError<Problem>> {
        Ok(())
    }
}

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "payments.received")]
struct Paid {
    order_id: String,
}

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "receipts.sent", subscribers = optional)]
struct Receipt {
    lines: u32,
}

#[subscriber]
async fn send_receipt(
    paid: Paid,
    orders: State<OrdersClient>,
) -> Result<Option<Receipt>, CallError> {
    let order = orders.order(&paid.order_id).await?;
    Ok(order.map(|order| Receipt { lines: order.lines }))
}

#[test]
fn the_record_says_what_was_written() {
    let record = OrdersClient::DESCRIPTOR;
    assert_eq!((record.name, record.service), ("Orders", "orders"));
    let methods: Vec<_> = record
        .methods
        .iter()
        .map(|method| (method.name, method.verb, method.path, method.keyed))
        .collect();
    assert_eq!(
        methods,
        [
            ("order", Verb::Get, "/api/v1/orders/{id}", false),
            ("list", Verb::Get, "/api/v1/orders", false),
            ("place", Verb::Post, "/api/v1/orders", true),
        ]
    );
    assert_eq!(record.settings.timeout.unwrap().as_secs(), 2);
    assert_eq!(record.methods[1].settings.timeout.unwrap().as_millis(), 250);
    assert_eq!(record.methods[2].settings.retry.attempts, Some(2));
}

#[tokio::test]
async fn a_client_may_be_an_implementation() {
    let client = OrdersClient::from_impl(Fake::default());
    let copy = client.with(CallOptions::new().no_retry());
    assert_eq!(copy.order("7").await.unwrap().unwrap().lines, 3);
    assert!(client.order("none").await.unwrap().is_none());
    assert!(
        client
            .list(None, Some("acme"))
            .await
            .unwrap()
            .body
            .is_empty()
    );
    let order = Order {
        id: "7".to_owned(),
        lines: 1,
    };
    client.place(&order).await.unwrap();
    // A client of a client is one, too.
    let again = OrdersClient::from_impl(client);
    assert!(again.order("8").await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_handler_takes_it_as_a_state() {
    let app = TestApp::new()
        .register::<send_receipt>()
        .state(OrdersClient::from_impl(Fake::default()))
        .start()
        .await;
    let paid = Paid {
        order_id: "7".to_owned(),
    };
    app.publish(&paid).await;
    interline::assert_published!(app, Receipt { lines: 3 });
}

#[test]
fn a_service_that_is_not_configured_is_a_line_of_the_report() {
    let error = TestApp::new()
        .register::<send_receipt>()
        .check()
        .unwrap_err();
    let text = error.to_string();
    let wanted = "send_receipt  needs the client `Orders` (runtime/tests/client.rs:";
    assert!(text.contains(wanted), "{text}");
    assert!(
        text.contains("and service `orders` is not configured"),
        "{text}"
    );
    let help = "help: write `[services.orders]` with `urls = [\"http://localhost:8080\"]`";
    assert!(text.contains(help), "{text}");
}

#[test]
fn the_configuration_of_a_service_is_checked_with_the_rest() {
    let toml = r#"
        [services.orders]
        urls = ["http://orders:8080"]
        timeout = "2s"
        tiemout = "3s"
        [services.orders.breaker]
        failure_rate = 7
        [services.orders.methods.plaice]
        timeout = "1s"
    "#;
    let config = Config::from_toml("interline.toml", toml).unwrap();
    let checked = TestApp::new()
        .config(config)
        .register::<send_receipt>()
        .check();
    let text = checked.unwrap_err().to_string();
    for wanted in [
        "tiemout",
        "did you mean `timeout`?",
        "failure_rate",
        "plaice",
        "did you mean `place`?",
    ] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
    let good = toml
        .replace("tiemout = \"3s\"\n", "")
        .replace("= 7", "= 0.7")
        .replace("plaice", "place");
    let config = Config::from_toml("interline.toml", &good).unwrap();
    let report = TestApp::new()
        .config(config)
        .register::<send_receipt>()
        .check()
        .unwrap();
    assert_eq!(
        report.services,
        [("orders".to_owned(), "http://orders:8080".to_owned())]
    );
}
