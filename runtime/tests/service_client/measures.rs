//! What is counted of calls, to the last one.

use std::time::{Duration, Instant};

use interline::http::{CallError, CallErrorKind};
use interline::observability::metrics::{
    CALLS_IN_FLIGHT, CALLS_WAITING, CIRCUIT_CHANGES, CIRCUIT_OPEN, CLIENT_ATTEMPTS,
    CLIENT_DURATION, CLIENT_ENDPOINTS, HEDGES, InMemoryMetrics, RETRIES,
};
use tokio::net::TcpListener;

use crate::server::{Reply, Server};
use crate::shop::{ITEM, Shop, ShopClient, item, measured};

const NEVER: Duration = Duration::from_secs(60);
const LIMIT: Duration = Duration::from_secs(30);

/// How many calls of `Shop::item` ended like this.
fn ended(metrics: &InMemoryMetrics, outcome: &str) -> u64 {
    let labels = [
        ("service", "shop"),
        ("method", "Shop::item"),
        ("outcome", outcome),
    ];
    metrics.count(CLIENT_DURATION, &labels)
}

fn kind<T>(result: Result<T, CallError>) -> CallErrorKind {
    result.err().expect("a failure").kind()
}

/// Waits until both gauges show this.
async fn until(metrics: &InMemoryMetrics, running: f64, waiting: f64) {
    let begun = Instant::now();
    loop {
        let shown = [CALLS_IN_FLIGHT, CALLS_WAITING].map(|gauge| metrics.sum(gauge, &[]));
        if shown == [running, waiting] {
            return;
        }
        assert!(begun.elapsed() < LIMIT, "{shown:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn calls_are_counted_by_how_they_end() {
    let server = Server::start(|_| Reply::json(ITEM)).await;
    let lines = "retry.attempts = 1\nbreaker.consecutive = 4";
    let (running, metrics) = measured(&[server.url()], lines).await;
    let shop: ShopClient = running.client().unwrap();
    for _ in 0..7 {
        assert_eq!(shop.item("7").await.unwrap(), item());
    }
    server.change(|_| Reply::status(404));
    for _ in 0..5 {
        assert_eq!(kind(shop.item("7").await), CallErrorKind::Status);
    }
    server.change(|_| Reply::json("{"));
    assert_eq!(kind(shop.item("7").await), CallErrorKind::Decode);
    assert_eq!(kind(shop.item("").await), CallErrorKind::Request);
    server.change(|_| Reply::status(503));
    for _ in 0..4 {
        assert_eq!(kind(shop.item("7").await), CallErrorKind::Status);
    }
    for _ in 0..3 {
        assert_eq!(
            kind(shop.item("7").await),
            CallErrorKind::CircuitBreakerOpen
        );
    }
    let counted = ["answered", "status", "decode", "request", "circuit_open"];
    assert_eq!(
        counted.map(|outcome| ended(&metrics, outcome)),
        [7, 9, 1, 1, 3]
    );
    assert_eq!(metrics.count(CLIENT_DURATION, &[]), 21);
    let attempts = |outcome| metrics.sum(CLIENT_ATTEMPTS, &[("outcome", outcome)]);
    assert_eq!((attempts("answered"), attempts("failed")), (13.0, 4.0));
    assert_eq!(metrics.sum(CLIENT_ENDPOINTS, &[("service", "shop")]), 1.0);
}

#[tokio::test]
async fn a_call_that_nobody_takes_is_counted_as_such() {
    // Bound and not listened on: nobody else gets the port, and nobody takes a connection.
    let nobody = tokio::net::TcpSocket::new_v4().unwrap();
    nobody.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}", nobody.local_addr().unwrap());
    let lines = "retry.attempts = 2\nretry.first = \"1ms\"";
    let (running, metrics) = measured(&[url], lines).await;
    let shop: ShopClient = running.client().unwrap();
    assert_eq!(kind(shop.item("7").await), CallErrorKind::RetryExhausted);
    assert_eq!(ended(&metrics, "retry_exhausted"), 1);
    let hanging = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", hanging.local_addr().unwrap());
    let (running, metrics) = measured(&[url], "methods.item.timeout = \"50ms\"").await;
    let shop: ShopClient = running.client().unwrap();
    assert_eq!(kind(shop.item("7").await), CallErrorKind::Timeout);
    assert_eq!(
        (ended(&metrics, "timeout"), ended(&metrics, "answered")),
        (1, 0)
    );
}

#[tokio::test]
async fn repeats_are_counted_and_so_are_those_that_may_not_be_made() {
    let server = Server::start(|seen| match seen.header("x-attempt") {
        "3" => Reply::json(ITEM),
        _ => Reply::status(503),
    })
    .await;
    // Three times two repeats may be made.
    let lines =
        "retry.first = \"1ms\"\nretry.budget = 2.0\nretry.floor = 0\nbreaker.enabled = false";
    let (running, metrics) = measured(&[server.url()], lines).await;
    let shop: ShopClient = running.client().unwrap();
    for _ in 0..3 {
        assert_eq!(shop.item("7").await.unwrap(), item());
    }
    let repeats = |metrics: &InMemoryMetrics, outcome| {
        let labels = [("service", "shop"), ("outcome", outcome)];
        metrics.sum(RETRIES, &labels)
    };
    assert_eq!(
        (repeats(&metrics, "sent"), repeats(&metrics, "refused")),
        (6.0, 0.0)
    );
    // None may.
    let lines =
        "retry.first = \"1ms\"\nretry.budget = 0.0\nretry.floor = 0\nbreaker.enabled = false";
    let (running, metrics) = measured(&[server.url()], lines).await;
    let shop: ShopClient = running.client().unwrap();
    for _ in 0..4 {
        assert_eq!(kind(shop.item("7").await), CallErrorKind::Status);
    }
    assert_eq!(
        (repeats(&metrics, "sent"), repeats(&metrics, "refused")),
        (0.0, 4.0)
    );
    assert_eq!(metrics.sum(HEDGES, &[]), 0.0);
    assert_eq!(server.count(), 13);
}

#[tokio::test]
async fn calls_that_run_and_calls_that_wait_are_shown() {
    let server = Server::start(|seen| match &*seen.target {
        "/api/items/7" => Reply::json(ITEM).after(NEVER),
        _ => Reply::status(200).body("begun").pieces(&[(NEVER, "more")]),
    })
    .await;
    let (running, metrics) = measured(&[server.url()], "concurrency = 2\nqueue = 1").await;
    let shop: ShopClient = running.client().unwrap();
    let http = running.manager().http_client("shop").unwrap();
    let call = || {
        let shop = shop.clone();
        tokio::spawn(async move { shop.item("7").await })
    };
    let stream = http.get("/stream").receive_stream().await.unwrap();
    until(&metrics, 1.0, 0.0).await;
    let running = call();
    until(&metrics, 2.0, 0.0).await;
    let waiting = call();
    until(&metrics, 2.0, 1.0).await;
    assert_eq!(kind(shop.item("7").await), CallErrorKind::BulkheadFull);
    assert_eq!(ended(&metrics, "bulkhead_full"), 1);
    // What is given up makes room, whether it runs, waits, or is being read.
    waiting.abort();
    until(&metrics, 2.0, 0.0).await;
    drop(stream);
    until(&metrics, 1.0, 0.0).await;
    running.abort();
    until(&metrics, 0.0, 0.0).await;
}

#[tokio::test]
async fn circuits_show_how_they_are() {
    let server = Server::start(|_| Reply::json(ITEM)).await;
    let (running, metrics) = measured(&[server.url()], "breaker.probes = 2").await;
    let shop: ShopClient = running.client().unwrap();
    let http = running.manager().http_client("shop").unwrap();
    let url = server.url();
    let shown = || {
        let of =
            |endpoint| metrics.sum(CIRCUIT_OPEN, &[("service", "shop"), ("endpoint", endpoint)]);
        (of(""), of(&*url))
    };
    assert_eq!(shown(), (0.0, 0.0));
    assert_eq!(
        metrics.count(CIRCUIT_OPEN, &[]),
        2,
        "also before anything happens"
    );
    let circuit = http.circuit().unwrap();
    let of_endpoint = http.endpoints()[0].circuit.clone().unwrap();
    of_endpoint.force_open();
    assert_eq!(shown(), (0.0, 1.0));
    circuit.open_for(Duration::from_millis(20), tokio::time::Instant::now());
    assert_eq!(shown(), (1.0, 1.0));
    of_endpoint.force_closed();
    assert_eq!(shown(), (1.0, 0.0));
    // The first of two probes.
    let begun = Instant::now();
    while shop.item("7").await.is_err() {
        assert!(begun.elapsed() < LIMIT, "no probe");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(shown(), (0.5, 0.0));
    shop.item("7").await.unwrap();
    assert_eq!(shown(), (0.0, 0.0));
    let changes = |state| metrics.sum(CIRCUIT_CHANGES, &[("endpoint", ""), ("state", state)]);
    assert_eq!(["open", "half_open", "closed"].map(changes), [1.0; 3]);
}
