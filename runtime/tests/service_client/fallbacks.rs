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
