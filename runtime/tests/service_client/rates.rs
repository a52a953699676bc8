//! How many calls may start.

use std::time::{Duration, Instant};

use interline::http::{CallErrorKind, Sent};
use interline::observability::metrics::RATE_LIMITED;
use interline::prelude::*;

use crate::server::{Reply, Server};
use crate::shop::{ITEM, Shop, ShopClient, client, item, measured};

#[tokio::test]
async fn more_calls_than_may_start_are_refused_at_once() {
    let server = Server::start(|_| Reply::json(ITEM)).await;
    let lines = "rate = { count = 5, per = \"1h\" }\nbreaker.consecutive = 1";
    let (running, metrics) = measured(&[server.url()], lines).await;
    let shop: ShopClient = running.client().unwrap();
    for _ in 0..5 {
        assert_eq!(shop.item("7").await.unwrap(), item());
    }
    for _ in 0..20 {
        // Which is nobody's failure: the circuits stay closed.
        let error = shop.item("7").await.unwrap_err();
        assert_eq!(error.kind(), CallErrorKind::RateLimited);
        assert_eq!((error.attempts(), error.is_sent()), (0, Sent::No));
        assert!(error.is_retryable());
        let wait = error.retry_after().unwrap();
        let twelve = Duration::from_secs(12 * 60);
        assert!(wait <= twelve && wait > twelve / 2, "{wait:?}");
    }
    assert_eq!(server.count(), 5);
    assert_eq!(metrics.sum(RATE_LIMITED, &[("service", "shop")]), 20.0);
}

#[tokio::test]
async fn calls_wait_for_their_turn_as_long_as_they_may() {
    let server = Server::start(|_| Reply::json(ITEM)).await;
    let lines = "rate = { count = 20, per = \"1s\", burst = 1, wait = \"170ms\" }";
    let shop = client(&[server.url()], lines).await;
    let begun = Instant::now();
    let (one, two, three, four, five) = tokio::join!(
        shop.item("1"),
        shop.item("2"),
        shop.item("3"),
        shop.item("4"),
        shop.item("5"),
    );
    assert!(one.is_ok() && two.is_ok() && three.is_ok() && four.is_ok());
    // The turns are 50 ms apart.
    assert!(begun.elapsed() >= Duration::from_millis(150));
    assert_eq!(five.unwrap_err().kind(), CallErrorKind::RateLimited);
    assert_eq!(server.count(), 4);
}

#[tokio::test]
async fn a_repeat_needs_a_turn_too_and_its_refusal_tells_the_failure() {
    let server = Server::start(|_| Reply::status(503)).await;
    let lines = "rate = { count = 2, per = \"1h\" }\nretry.first = \"1ms\"\nretry.attempts = 5";
    let shop = client(&[server.url()], lines).await;
    let error = shop.item("7").await.unwrap_err();
    assert_eq!(
        (error.kind(), error.attempts()),
        (CallErrorKind::RetryExhausted, 2)
    );
    let text = error.to_string();
    assert!(text.contains("answered 503"), "{text}");
    assert!(
        text.contains("the rate allows no further attempt"),
        "{text}"
    );
    assert_eq!(server.count(), 2);
}

#[tokio::test]
async fn a_rate_without_a_count_is_a_mistake() {
    let toml = "service.name = \"till\"\n[services.shop]\nurls = [\"http://a\"]\nrate.per = \"1s\"";
    let config = Config::from_toml("interline.toml", toml).unwrap();
    let app = App::new(config).named_only().publish_only();
    let report = format!("{:?}", app.launch().await.unwrap_err());
    assert!(
        report.contains("services.shop.rate.count  is missing"),
        "{report}"
    );
}
