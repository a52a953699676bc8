//! What a method gives where the service gives nothing.

use std::sync::Arc;
use std::time::Duration;

use interline::http::CallErrorKind;
use interline::observability::metrics::{CLIENT_FALLBACKS, InMemoryMetrics};
use interline::prelude::*;

use crate::server::{Reply, Server};
use crate::shop::{ITEM, Item, Wrapped, item};

#[service_client(service = "shop", retry(attempts = 2, first = "1ms"))]
trait Shelf {
    #[get("/items/{id}")]
    #[fallback(unknown_item(id))]
    #[timeout("2s")]
    async fn item(&self, id: &str) -> Result<Item, CallError>;

    #[get("/left")]
    #[fallback(value = vec![1, 2])]
    async fn left(&self) -> Result<Vec<u32>, Wrapped>;

    #[get("/names")]
    #[fallback(names::give_up)]
    #[timeout("200ms")]
    async fn names(&self) -> Result<Vec<String>, CallError>;
}

async fn unknown_item(error: CallError, id: &str) -> Result<Item, CallError> {
    assert_ne!(error.attempts(), 0, "{error}");
    let id = format!("{id}?");
    Ok(Item { id, left: 0 })
}

mod names {
    use interline::CallError;

    pub(super) async fn give_up(error: CallError) -> Result<Vec<String>, CallError> {
        match error.is_timeout() {
            true => Ok(vec!["late".to_owned()]),
            false => Err(error),
        }
    }
}

async fn shelf(url: String) -> (ShelfClient, InMemoryMetrics) {
    let toml = format!("service.name = \"till\"\n[services.shop]\nurls = [\"{url}\"]\n");
    let config = Config::from_toml("interline.toml", &toml).unwrap();
    let metrics = InMemoryMetrics::default();
    let app = App::new(config)
        .named_only()
        .publish_only()
        .metrics(Arc::new(metrics.clone()));
    let running = app.launch().await.unwrap();
    (running.client().unwrap(), metrics)
}

#[tokio::test]
async fn a_fallback_stands_in_for_what_the_service_does_not_give() {
    let server = Server::start(|_| Reply::status(503)).await;
    let (shelf, metrics) = shelf(server.url()).await;
    let missing = shelf.item("7").await.unwrap();
    assert_eq!((&*missing.id, missing.left), ("7?", 0));
    assert_eq!(shelf.left().await.unwrap(), [1, 2]);
    // The function may give the error back.
    let error = shelf.names().await.unwrap_err();
    assert_eq!(error.kind(), CallErrorKind::RetryExhausted);
    let fell =
        |method: &str| metrics.sum(CLIENT_FALLBACKS, &[("service", "shop"), ("method", method)]);
    assert_eq!(
        (
            fell("Shelf::item"),
            fell("Shelf::left"),
            fell("Shelf::names")
        ),
        (1.0, 1.0, 1.0)
    );
    server.change(|seen| match &*seen.target {
        "/left" => Reply::json("[3]"),
        _ => Reply::json(ITEM),
    });
    assert_eq!(shelf.item("7").await.unwrap(), item());
    assert_eq!(shelf.left().await.unwrap(), [3]);
    assert_eq!(fell("Shelf::item"), 1.0);
}

#[tokio::test]
async fn a_fallback_stands_in_where_the_time_is_over_and_where_the_answer_makes_no_sense() {
    let server = Server::start(|seen| match &*seen.target {
        "/left" => Reply::json("\"three\""),
        _ => Reply::json("[]").after(Duration::from_secs(20)),
    })
    .await;
    let (shelf, _) = shelf(server.url()).await;
    assert_eq!(shelf.names().await.unwrap(), ["late"]);
    assert_eq!(shelf.left().await.unwrap(), [1, 2]);
}

#[tokio::test]
async fn a_fallback_does_not_cover_up_mistakes_of_the_caller() {
    let server = Server::start(|_| Reply::status(404)).await;
    let (shelf, metrics) = shelf(server.url()).await;
    let refused = shelf.item("7").await.unwrap_err();
    assert_eq!(refused.status().unwrap().as_u16(), 404);
    assert!(refused.is_client_error());
    let unsent = shelf.item("..").await.unwrap_err();
    assert_eq!(unsent.kind(), CallErrorKind::Request);
    assert!(shelf.left().await.unwrap_err().0.contains("404"));
    let none: [(&str, &str); 0] = [];
    assert_eq!(metrics.sum(CLIENT_FALLBACKS, &none), 0.0);
    assert_eq!(server.count(), 2);
}

/// What a second service answers, where the first does not.
#[service_client(service = "shop", retry(attempts = 2, first = "1ms", jitter = none))]
trait Counter {
    #[get("/items/{id}")]
    #[fallback(service = "copy")]
    #[timeout("8s")]
    async fn item(
        &self,
        id: &str,
        #[query] page: u32,
        #[header("x-tenant")] tenant: &str,
    ) -> Result<Option<Item>, CallError>;

    #[post("/items")]
    #[idempotent]
    #[fallback(service = "copy")]
    async fn add(&self, #[body] item: &Item) -> Result<(), CallError>;

    #[get("/left")]
    #[fallback(service = "copy", value = vec![0])]
    async fn left(&self) -> Result<Vec<u32>, CallError>;
}

struct Two {
    counter: CounterClient,
    metrics: InMemoryMetrics,
    shop: Server,
    copy: Server,
}

impl Two {
    async fn start(lines: &str) -> Self {
        let shop = Server::start(|_| Reply::status(503)).await;
        let copy = Server::start(|seen| match &*seen.target {
            "/left" => Reply::json("[5]"),
            _ => Reply::json(ITEM),
        })
        .await;
        let toml = format!(
            "service.name = \"till\"\n[services.shop]\nurls = [\"{}\"]\nbreaker.enabled = false\n\
             retry.floor = 100\n[services.copy]\nurls = [\"{}\"]\n{lines}\n",
            shop.url(),
            copy.url()
        );
        let config = Config::from_toml("interline.toml", &toml).unwrap();
        let metrics = InMemoryMetrics::default();
        let app = App::new(config).named_only().publish_only();
        let running = app.metrics(Arc::new(metrics.clone())).launch();
        let counter = running.await.unwrap().client().unwrap();
        Self {
            counter,
            metrics,
            shop,
            copy,
        }
    }

    fn fell(&self, method: &str) -> f64 {
        let labels = [("service", "shop"), ("method", method)];
        self.metrics.sum(CLIENT_FALLBACKS, &labels)
    }

    async fn item(&self) -> Result<Option<Item>, CallError> {
        self.counter.item("A 7", 2, "north").await
    }
}

#[tokio::test]
async fn another_service_is_sent_the_same_request_where_the_first_gives_nothing() {
    let two = Two::start("").await;
    assert_eq!(two.item().await.unwrap(), Some(item()));
    two.counter.add(&item()).await.unwrap();
    assert_eq!(two.counter.left().await.unwrap(), [5]);
    assert_eq!((two.shop.count(), two.copy.count()), (6, 3));
    let (asked, other) = (two.shop.seen(), two.copy.seen());
    for (asked, other) in asked.iter().step_by(2).zip(&other) {
        assert_eq!(
            (&asked.method, &asked.target, &asked.body),
            (&other.method, &other.target, &other.body)
        );
        for name in ["x-tenant", "idempotency-key", "traceparent", "user-agent"] {
            assert_eq!(asked.header(name), other.header(name), "{name}");
        }
    }
    assert_eq!(other[0].target, "/items/A%207?page=2");
    assert_eq!(other[0].header("x-tenant"), "north");
    assert_eq!(other[0].header("x-attempt"), "1");
    assert_eq!(other[1].header("idempotency-key").len(), 36);
    for method in ["Counter::item", "Counter::add", "Counter::left"] {
        assert_eq!(two.fell(method), 1.0, "{method}");
    }
    // What is there again is asked alone.
    two.shop.change(|_| Reply::json(ITEM));
    assert_eq!(two.item().await.unwrap(), Some(item()));
    assert_eq!((two.copy.count(), two.fell("Counter::item")), (3, 1.0));
}

#[tokio::test]
async fn both_services_share_the_time_of_the_call() {
    let two = Two::start("timeout = \"1h\"").await;
    two.shop
        .change(|_| Reply::json(ITEM).after(Duration::from_secs(60)));
    assert_eq!(two.item().await.unwrap(), Some(item()));
    let left = |server: &Server| server.seen()[0].header("x-timeout-ms").parse::<u64>();
    assert!(left(&two.shop).unwrap() <= 4_000, "{:?}", two.shop.seen());
    assert!(left(&two.copy).unwrap() <= 4_000, "{:?}", two.copy.seen());
    assert_eq!(two.fell("Counter::item"), 1.0);
}

#[tokio::test]
async fn what_the_other_service_says_of_a_request_stays_and_what_it_does_not_give_is_told() {
    let two = Two::start("").await;
    two.copy.change(|_| Reply::status(404));
    assert_eq!(two.item().await.unwrap(), None);
    let refused = two.counter.add(&item()).await.unwrap_err();
    assert_eq!(refused.status().unwrap().as_u16(), 404);
    assert_eq!(refused.service(), "copy");
    two.copy.change(|_| Reply::status(500));
    let error = two.item().await.unwrap_err();
    assert_eq!(
        (error.service(), error.kind(), error.attempts()),
        ("shop", CallErrorKind::RetryExhausted, 2)
    );
    let text = error.to_string();
    assert!(text.contains("answered 503"), "{text}");
    assert!(
        text.contains("service `copy`, which stands in: answered 500"),
        "{text}"
    );
    assert_eq!(two.fell("Counter::item"), 1.0);
    // Where neither gives anything, there is the value, and that is one fallback.
    assert_eq!(two.counter.left().await.unwrap(), [0]);
    assert_eq!(two.fell("Counter::left"), 1.0);
    // A mistake of the caller is one everywhere.
    let before = two.copy.count();
    two.shop.change(|_| Reply::status(400));
    let error = two.item().await.unwrap_err();
    assert_eq!((error.service(), two.copy.count()), ("shop", before));
}

#[tokio::test]
async fn the_other_service_has_its_own_settings_and_is_needed_from_the_start() {
    let two = Two::start("methods.item.retry.attempts = 1\nmethods.item.timeout = \"2s\"").await;
    two.copy.change(|_| Reply::status(503));
    two.item().await.unwrap_err();
    assert_eq!((two.shop.count(), two.copy.count()), (2, 1));
    let left = two.copy.seen()[0].header("x-timeout-ms").parse::<u64>();
    assert!(left.unwrap() <= 2_000, "{:?}", two.copy.seen());
    let toml = "service.name = \"till\"\n[services.shop]\nurls = [\"http://localhost:1\"]\n";
    let config = Config::from_toml("interline.toml", toml).unwrap();
    let app = App::new(config).named_only().publish_only();
    let running = app.launch().await.unwrap();
    let error = running.client::<CounterClient>().unwrap_err().to_string();
    assert!(
        error.contains("service `copy` is not configured"),
        "{error}"
    );
}
