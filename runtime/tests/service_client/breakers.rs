//! Circuit breakers, limits, and the choice among endpoints.

use std::sync::Arc;
use std::time::Duration;

use interline::http::CallErrorKind;
use interline::resilience::CircuitState;

use crate::server::{Reply, Server};
use crate::shop::{ITEM, Shop, ShopClient, client, item, till};

#[tokio::test]
async fn a_service_that_fails_is_left_alone_and_found_again() {
    let server = Server::start(|_| Reply::status(500)).await;
    let lines = "breaker.consecutive = 3\nbreaker.open = \"400ms\"";
    let shop = client(&[server.url()], lines).await;
    for _ in 0..3 {
        assert_eq!(
            shop.item("7").await.unwrap_err().kind(),
            CallErrorKind::Status
        );
    }
    for _ in 0..50 {
        let error = shop.item("7").await.unwrap_err();
        assert_eq!(
            (error.kind(), error.attempts()),
            (CallErrorKind::CircuitBreakerOpen, 0)
        );
        assert!(error.retry_after().unwrap() <= Duration::from_millis(440));
    }
    assert_eq!(server.count(), 3);
    server.change(|_| Reply::json(ITEM));
    tokio::time::sleep(Duration::from_millis(450)).await;
    assert_eq!(shop.item("7").await.unwrap(), item());
    assert_eq!(shop.item("7").await.unwrap(), item());
}

#[tokio::test]
async fn a_circuit_can_be_opened_and_closed_by_hand() {
    let server = Server::start(|_| Reply::json(ITEM)).await;
    let running = till(&[server.url()], "breaker.consecutive = 1").await;
    let shop: ShopClient = running.client().unwrap();
    let http = running.manager().http_client("shop").unwrap();
    let circuit = http.circuit().unwrap();
    circuit.force_open();
    assert_eq!(circuit.state(), CircuitState::ForcedOpen);
    let error = shop.item("7").await.unwrap_err();
    assert_eq!(error.kind(), CallErrorKind::CircuitBreakerOpen);
    assert_eq!((error.retry_after(), server.count()), (None, 0));
    circuit.force_closed();
    server.change(|_| Reply::status(500));
    for _ in 0..10 {
        assert_eq!(
            shop.item("7").await.unwrap_err().kind(),
            CallErrorKind::Status
        );
    }
    circuit.reset();
    assert_eq!(
        shop.item("7").await.unwrap_err().kind(),
        CallErrorKind::Status
    );
    assert_eq!(circuit.state(), CircuitState::Open);
    assert_eq!(server.count(), 11);
}

#[tokio::test]
async fn calls_that_were_wrong_by_themselves_open_nothing() {
    let server = Server::start(|_| Reply::status(404)).await;
    let shop = client(&[server.url()], "breaker.consecutive = 3").await;
    for _ in 0..20 {
        assert_eq!(
            shop.item("7").await.unwrap_err().kind(),
            CallErrorKind::Status
        );
    }
    assert_eq!(server.count(), 20);
}

#[tokio::test]
async fn one_bad_endpoint_of_four_costs_no_call_and_gets_few() {
    let mut servers = Vec::new();
    for number in 0..4 {
        let reply = move |_: &_| match number {
            2 => Reply::status(503),
            _ => Reply::json(ITEM).after(Duration::from_millis(2)),
        };
        servers.push(Server::start(reply).await);
    }
    let urls: Vec<_> = servers.iter().map(Server::url).collect();
    let shop = Arc::new(client(&urls, "").await);
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let shop = Arc::clone(&shop);
        calls.spawn(async move {
            for _ in 0..150 {
                assert_eq!(shop.item("7").await.unwrap(), item());
            }
        });
    }
    calls.join_all().await;
    let counts: Vec<_> = servers.iter().map(Server::count).collect();
    // 1 200 calls; it fails in no time, and would get most of them if that looked fast.
    assert!(counts[2] <= 24, "{counts:?}");
    assert!([0, 1, 3].iter().all(|at| counts[*at] > 20), "{counts:?}");
}

#[tokio::test]
async fn where_all_endpoints_fail_they_are_called_all_the_same() {
    let servers = [
        Server::start(|_| Reply::status(503)).await,
        Server::start(|_| Reply::status(503)).await,
    ];
    let urls: Vec<_> = servers.iter().map(Server::url).collect();
    // The service's own breaker never sees five failures in a row.
    let lines =
        "breaker.consecutive = 5\nretry.attempts = 4\nretry.first = \"1ms\"\nretry.floor = 1000";
    let shop = client(&urls, lines).await;
    for _ in 0..4 {
        assert_eq!(shop.item("7").await.unwrap_err().attempts(), 4);
    }
    for server in &servers {
        server.change(|_| Reply::json(ITEM));
    }
    assert_eq!(shop.item("7").await.unwrap(), item());
}

#[tokio::test]
async fn as_many_calls_run_as_may_and_dropped_ones_give_their_place_back() {
    let slow = |_: &_| Reply::json(ITEM).after(Duration::from_millis(40));
    let server = Server::start(slow).await;
    let lines = "concurrency = 2\nqueue = 0\nbreaker.consecutive = 1";
    let shop = client(&[server.url()], lines).await;
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    for _ in 0..100 {
        let patience = Duration::from_micros(rng.u64(..30_000));
        // Given up at some point on the way.
        let _ = tokio::time::timeout(patience, shop.item("7")).await;
    }
    let (one, two, three) = tokio::join!(shop.item("1"), shop.item("2"), shop.item("3"));
    assert!(one.is_ok() && two.is_ok(), "{one:?} {two:?}");
    let error = three.unwrap_err();
    assert_eq!(
        (error.kind(), error.attempts()),
        (CallErrorKind::BulkheadFull, 0)
    );
}
