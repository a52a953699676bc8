//! Services that are called and answer by a script, as the tests of those that call them use them.
#![cfg(all(feature = "testing", feature = "macros", feature = "http"))]
#![expect(
    clippy::unwrap_used,
    reason = "it is all tests, and the lint takes their helpers for something else"
)]

use std::time::Duration;

use interline::config::Config;
use interline::http::ByteStream;
use interline::prelude::*;
use interline::testing::{Answer, TestApp, Upstream};
use tokio::time::Instant;

mod faults;
mod instances;
mod readme;
mod reports;
mod stack;

interline::service!("till");

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Item {
    id: u32,
    left: u32,
}

#[service_client(service = "stock", base = "/api")]
trait Stock {
    #[get("/items/{id}")]
    async fn item(&self, id: u32) -> Result<Item, CallError>;

    #[get("/items/{id}/maybe")]
    async fn maybe(&self, id: u32) -> Result<Option<Item>, CallError>;

    #[get("/search")]
    async fn search(
        &self,
        #[query] text: &str,
        #[header("x-tenant")] tenant: &str,
    ) -> Result<Vec<Item>, CallError>;

    #[get("/file")]
    async fn file(&self) -> Result<ByteStream, CallError>;

    #[get("/safe/{id}")]
    #[cache(ttl = "60s", stale_if_error = "1h")]
    async fn covered(&self, id: u32) -> Result<u32, CallError>;

    #[get("/old/{id}")]
    #[cache(ttl = "60s", stale_while_revalidate = "1h")]
    async fn aging(&self, id: u32) -> Result<u32, CallError>;

    #[post("/orders")]
    async fn order(&self, #[body] item: &Item) -> Result<(), CallError>;

    #[post("/orders/once")]
    #[idempotent]
    async fn order_once(&self, #[body] item: &Item) -> Result<(), CallError>;
}

const ITEM: Item = Item { id: 7, left: 3 };
const GET: &str = "GET /api/items/{id}";
const SECOND: Duration = Duration::from_secs(1);

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// An upstream that has the item.
fn stock() -> Upstream {
    let stock = Upstream::new("stock");
    stock.answer(GET, Answer::json(&ITEM));
    stock
}

/// An app that calls it, with these further lines of configuration for the service.
async fn till(stock: &Upstream, lines: &str) -> (TestApp, StockClient) {
    let toml = format!("service.name = \"till\"\n[services.stock]\n{lines}\n");
    let config = Config::from_toml("interline.toml", &toml).unwrap();
    let app = TestApp::new().config(config).upstream(stock);
    let app = app.seed(7).publish_only().start().await;
    let client = app.client();
    (app, client)
}

/// When each request came, since the first one.
fn times(stock: &Upstream) -> Vec<Duration> {
    let all = stock.requests();
    all.iter().map(|one| one.at() - all[0].at()).collect()
}

/// What came of it, and how long it took.
async fn timed<T>(call: impl Future<Output = T>) -> (T, Duration) {
    let begun = Instant::now();
    let result = call.await;
    (result, begun.elapsed())
}

/// The text of the panic of `test`.
async fn panic_of(test: impl Future<Output = ()> + Send + 'static) -> String {
    let panic = tokio::spawn(test).await.unwrap_err().into_panic();
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => (*panic.downcast::<&str>().expect("a panic with a text")).to_owned(),
    }
}
