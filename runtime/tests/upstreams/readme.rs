//! The README's example, as it stands there.

use interline::assert_called;
use interline::prelude::*;
use interline::testing::{Answer, TestApp, Upstream};

type OrderId = String;

#[derive(Serialize, Deserialize)]
pub(super) struct Order {
    total_cents: u64,
}

#[derive(Serialize)]
pub(super) struct NewOrder {
    total_cents: u64,
}

#[service_client(service = "orders", base = "/api/v1", timeout = "2s")]
pub(super) trait Orders {
    #[get("/orders/{id}")]
    async fn order(&self, id: OrderId) -> Result<Option<Order>, CallError>;
    #[post("/orders")]
    #[idempotent]
    async fn place(&self, #[body] order: &NewOrder) -> Result<Order, CallError>;
}

#[tokio::test(start_paused = true)]
async fn an_order_is_found_in_the_end() {
    let orders = Upstream::new("orders");
    let order = Order { total_cents: 700 };
    orders.answer("GET /api/v1/orders/{id}", Answer::json(&order));
    orders.next("GET *", [Answer::reset(), Answer::status(503)]);
    let config = Config::new().with("service.name", "billing");
    let app = TestApp::new().config(config).publish_only();
    let app = app.upstream(&orders).start().await;
    let client: OrdersClient = app.client();
    let found = client.order("7".into()).await.unwrap().unwrap();
    assert_eq!(found.total_cents, 700);
    assert_called!(app, orders, "GET /api/v1/orders/7", times = 3);
    orders.answer("POST *", Answer::json(&order));
    let new = NewOrder { total_cents: 700 };
    assert_eq!(client.place(&new).await.unwrap().total_cents, 700);
}
