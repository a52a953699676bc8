//! The client under test, and the apps it stands in.

use std::sync::Arc;

use bytes::Bytes;
use interline::http::{Problem, Response};
use interline::observability::metrics::InMemoryMetrics;
use interline::prelude::*;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Item {
    pub(crate) id: String,
    pub(crate) left: u32,
}

#[derive(Debug, Serialize)]
pub(crate) struct Filter<'a> {
    pub(crate) text: &'a str,
    pub(crate) page: Option<u32>,
    pub(crate) tag: Vec<&'a str>,
}

#[derive(Debug, PartialEq, Deserialize)]
pub(crate) struct ShopProblem {
    pub(crate) code: u32,
}

/// An error of the caller's own.
#[derive(Debug)]
pub(crate) struct Wrapped(pub(crate) String);

impl From<CallError> for Wrapped {
    fn from(error: CallError) -> Self {
        Self(error.to_string())
    }
}

#[service_client(service = "shop", base = "/api", timeout = "5s")]
pub(crate) trait Shop {
    #[get("/items/{id}")]
    async fn item(&self, id: &str) -> Result<Item, CallError>;

    #[get("/items/{id}/maybe")]
    async fn maybe(&self, id: u32) -> Result<Option<Item>, Wrapped>;

    #[get("/items")]
    async fn search(
        &self,
        #[query] filter: &Filter<'_>,
        #[query("max-results")] max: u8,
        #[header("x-tenant")] tenant: &str,
        #[header("x-trial")] trial: Option<bool>,
    ) -> Result<Response<Vec<Item>>, CallError>;

    #[post("/items")]
    async fn add(&self, #[body] item: &Item) -> Result<(), CallError<Problem>>;

    #[post("/items/once")]
    #[idempotent]
    async fn add_once(&self, #[body] item: &Item) -> Result<(), CallError>;

    #[put("/items/{id}")]
    async fn set(&self, id: &str, #[body] item: Item) -> Result<(), CallError>;

    #[patch("/items/{id}")]
    async fn change(&self, id: &str, #[body] left: u32) -> Result<(), CallError>;

    #[delete("/items/{id}")]
    async fn remove(&self, id: &str) -> Result<Option<()>, CallError>;

    #[head("/items/{id}")]
    async fn exists(&self, id: &str) -> Result<Response<()>, CallError>;

    #[get("/items/{id}/picture.{format}")]
    #[timeout("300ms")]
    async fn picture(&self, id: u32, format: &str) -> Result<Bytes, CallError>;
}

/// The same service, where a second request is sent soon.
#[service_client(service = "shop", client = HedgingShop)]
pub(crate) trait ShopWithHedges {
    #[get("/items/{id}")]
    #[retry(hedge = "30ms")]
    async fn item(&self, id: u32) -> Result<Item, CallError>;

    #[post("/items")]
    #[idempotent]
    #[retry(hedge = "30ms")]
    async fn add_once(&self, #[body] item: &Item) -> Result<(), CallError>;
}

/// The same service, whose errors have a form of their own.
#[service_client(service = "shop", error = ShopProblem, client = StrictShop)]
pub(crate) trait ShopWithCodes {
    #[get("/items/{id}")]
    async fn item(&self, id: u32) -> Result<Item, CallError<ShopProblem>>;
}

pub(crate) fn item() -> Item {
    Item {
        id: "7".to_owned(),
        left: 3,
    }
}

pub(crate) const ITEM: &str = r#"{"id": "7", "left": 3}"#;

/// The same app with what it measures.
pub(crate) async fn measured(urls: &[String], lines: &str) -> (Running, Arc<InMemoryMetrics>) {
    let toml = format!("service.name = \"till\"\n[services.shop]\nurls = {urls:?}\n{lines}\n");
    let config = Config::from_toml("interline.toml", &toml).expect("TOML");
    let metrics = Arc::new(InMemoryMetrics::default());
    let app = App::new(config).named_only().publish_only();
    let running = app
        .metrics(Arc::<InMemoryMetrics>::clone(&metrics))
        .launch();
    (running.await.expect("a sound wiring"), metrics)
}

/// A running app that calls these addresses, with these further lines for the service.
pub(crate) async fn till(urls: &[String], lines: &str) -> Running {
    let toml = format!("service.name = \"till\"\n[services.shop]\nurls = {urls:?}\n{lines}\n");
    let config = Config::from_toml("interline.toml", &toml).expect("TOML");
    let app = App::new(config).named_only().publish_only();
    app.launch().await.expect("a sound wiring")
}

pub(crate) async fn client(urls: &[String], lines: &str) -> ShopClient {
    till(urls, lines)
        .await
        .client()
        .expect("a configured service")
}
