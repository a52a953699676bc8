//! How long calls may take, and what a handler passes on to those that it makes.

use std::time::{Duration, Instant};

use interline::CallOptions;
use interline::http::{CallErrorKind, Sent};
use interline::prelude::*;
use interline::testing::FaultProxy;
use tokio::sync::mpsc;

use crate::server::{Reply, Server};
use crate::shop::{ITEM, Shop, ShopClient, client, item};

#[tokio::test]
async fn a_call_ends_when_its_time_is_up() {
    let server = Server::start(|_| Reply::json(ITEM).after(Duration::from_secs(20))).await;
    let shop = client(&[server.url()], "").await;
    let begun = Instant::now();
    let error = shop.picture(1, "png").await.unwrap_err();
    let took = begun.elapsed();
    assert_eq!(
        (error.kind(), error.is_sent()),
        (CallErrorKind::Timeout, Sent::Maybe)
    );
    assert!(error.is_timeout() && error.is_retryable());
    let limits = Duration::from_millis(300)..Duration::from_millis(900);
    assert!(limits.contains(&took), "{took:?}");
}

#[tokio::test]
async fn a_call_whose_time_was_over_before_is_not_sent_and_is_nobodys_failure() {
    let server = Server::start(|_| Reply::json(ITEM)).await;
    let shop = client(&[server.url()], "").await;
    let late = shop.with(CallOptions::new().deadline(Instant::now().into()));
    for _ in 0..20 {
        let error = late.item("7").await.unwrap_err();
        assert_eq!(
            (error.kind(), error.is_sent(), error.attempts()),
            (CallErrorKind::Timeout, Sent::No, 0)
        );
    }
    assert_eq!(server.count(), 0);
    // No circuit has opened.
    assert_eq!(shop.item("7").await.unwrap(), item());
}

#[tokio::test]
async fn an_endpoint_that_swallows_everything_costs_one_attempt() {
    let server = Server::start(|_| Reply::json(ITEM)).await;
    let proxy = FaultProxy::start(server.address()).await.unwrap();
    proxy.black_hole(true);
    let urls = [server.url(), format!("http://{}", proxy.address())];
    let lines = "attempt_timeout = \"300ms\"\nbalance = \"round_robin\"";
    let shop = client(&urls, lines).await;
    for _ in 0..30 {
        let begun = Instant::now();
        assert_eq!(shop.item("7").await.unwrap(), item());
        assert!(
            begun.elapsed() < Duration::from_secs(2),
            "{:?}",
            begun.elapsed()
        );
    }
    // More only where this machine itself took so long.
    assert!(server.count() >= 30);
}

#[tokio::test]
async fn the_configuration_of_a_method_stands_above_its_attributes() {
    let server = Server::start(|_| Reply::status(200).after(Duration::from_millis(600))).await;
    let lines = "methods.picture.timeout = \"5s\"\nmethods.item.timeout = \"100ms\"";
    let shop = client(&[server.url()], lines).await;
    assert!(shop.picture(1, "png").await.unwrap().is_empty());
    assert_eq!(
        shop.item("7").await.unwrap_err().kind(),
        CallErrorKind::Timeout
    );
}

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "till.scanned")]
struct Scanned {
    id: String,
}

struct Results(mpsc::Sender<Result<(), CallErrorKind>>);

#[subscriber(timeout = "700ms", retry(attempts = 1))]
async fn scan(scanned: Scanned, shop: State<ShopClient>, results: State<Results>) {
    let result = shop.item(&scanned.id).await;
    let result = result.map(|_| ()).map_err(|error| error.kind());
    results.0.send(result).await.expect("a test that waits");
}

#[tokio::test]
async fn a_call_inherits_deadline_and_trace_of_the_handler_that_makes_it() {
    let server = Server::start(|_| Reply::json(ITEM)).await;
    let toml = format!("[services.shop]\nurls = [\"{}\"]", server.url());
    let config = Config::from_toml("interline.toml", &toml).unwrap();
    let (sender, mut results) = mpsc::channel(4);
    let app = App::new(config)
        .named_only()
        .register::<scan>()
        .state(Results(sender));
    let running = app.launch().await.unwrap();
    let message = Scanned { id: "7".to_owned() };
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let publish = Publish::new(message).header("traceparent", trace);
    let receipt = running.publisher().publish(publish).await.unwrap();
    assert_eq!(results.recv().await.unwrap(), Ok(()));
    let seen = server.seen();
    let left: u64 = seen[0].header("x-timeout-ms").parse().unwrap();
    assert!((100..=700).contains(&left), "{left}");
    let parent = seen[0].header("traceparent");
    assert_eq!(parent[..36], trace[..36]);
    assert_ne!(parent[36..52], trace[36..52]);
    assert_eq!(seen[0].header("causation-id"), receipt.id.as_str());
    assert_eq!(seen[0].header("correlation-id"), receipt.id.as_str());
    running.stop_within(Duration::from_secs(5)).await;
}
