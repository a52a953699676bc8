//! Circuit breakers, limits, and the choice among endpoints.

use std::sync::Arc;
use std::time::Duration;

use interline::http::CallErrorKind;
use interline::prelude::*;
use interline::resilience::{CircuitState, Signal};

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
async fn the_circuit_of_an_instance_can_be_seen_and_opened_by_hand() {
    let (one, two) = (
        Server::start(|_| Reply::json(ITEM)).await,
        Server::start(|_| Reply::json(ITEM)).await,
    );
    let lines = "balance = \"round_robin\"\nslow_start = \"0s\"\nbreaker.consecutive = 2";
    let running = till(&[one.url(), two.url()], lines).await;
    let shop: ShopClient = running.client().unwrap();
    let http = running.manager().http_client("shop").unwrap();
    let of = |server: &Server| {
        let all = http.endpoints();
        all.into_iter()
            .find(|one| *one.url == *server.url())
            .unwrap()
    };
    let endpoint = of(&one);
    assert_eq!((http.endpoints().len(), endpoint.in_flight), (2, 0));
    assert!(!endpoint.is_ejected && !endpoint.is_down);
    let circuit = endpoint.circuit.unwrap();
    let mut changes = circuit.subscribe();
    circuit.force_open();
    assert!(of(&one).is_ejected);
    for _ in 0..10 {
        shop.item("7").await.unwrap();
    }
    assert_eq!((one.count(), two.count()), (0, 10));
    circuit.reset();
    assert!(!of(&one).is_ejected);
    for _ in 0..10 {
        shop.item("7").await.unwrap();
    }
    assert_eq!((one.count(), two.count()), (5, 15));
    // What calls find out can be seen and heard.
    one.change(|_| Reply::status(500));
    while one.count() < 7 {
        let _ = shop.item("7").await;
    }
    assert_eq!(of(&one).circuit.unwrap().state(), CircuitState::Open);
    assert!(of(&one).is_ejected && !of(&two).is_ejected);
    for state in [
        CircuitState::ForcedOpen,
        CircuitState::Closed,
        CircuitState::Open,
    ] {
        assert_eq!(changes.next().await.unwrap().to, state);
    }
    two.change(|_| Reply::json(ITEM).after(Duration::from_secs(60)));
    let asked = two.count();
    let call = tokio::spawn(async move { shop.item("7").await });
    while two.count() == asked {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(of(&two).in_flight, 1);
    call.abort();
}

#[tokio::test]
async fn the_configuration_says_what_is_a_failure() {
    let server = Server::start(|_| Reply::status(500)).await;
    let lines =
        "retry.attempts = 1\nbreaker.consecutive = 3\nbreaker.failures = [\"404\", \"429\"]";
    let shop = client(&[server.url()], lines).await;
    let state = async |times: usize| {
        let mut last = None;
        for _ in 0..times {
            last = Some(shop.item("7").await.unwrap_err().kind());
        }
        last.unwrap()
    };
    assert_eq!(state(30).await, CallErrorKind::Status);
    server.change(|seen| match seen.number % 2 {
        0 => Reply::status(404),
        _ => Reply::status(429),
    });
    assert_eq!(state(3).await, CallErrorKind::Status);
    assert_eq!(state(1).await, CallErrorKind::CircuitBreakerOpen);
    assert_eq!(server.count(), 33);
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

#[tokio::test]
async fn the_program_may_judge_the_answers_itself() {
    let server = Server::start(|_| Reply::json(ITEM).header("x-degraded", "yes")).await;
    let toml = |lines: &str| {
        let url = server.url();
        let toml = format!(
            "service.name = \"till\"\n[services.shop]\nurls = [\"{url}\"]\nretry.attempts = 1\n\
             breaker.consecutive = 3\nbreaker.open = \"1h\"\nejection.max_share = 0.0\n{lines}\n"
        );
        Config::from_toml("interline.toml", &toml).unwrap()
    };
    let app = |config| {
        let app = App::new(config).named_only().publish_only();
        app.judge("shop", |answer| {
            let excused = answer.body.starts_with(b"closed");
            match answer.headers.contains_key("x-degraded") {
                true => Signal::Failure,
                false if answer.status.is_server_error() && !excused => Signal::Failure,
                false => Signal::Success,
            }
        })
    };
    // A success that says it is none opens the circuit, and the caller has the answer.
    let running = app(toml("")).launch().await.unwrap();
    let shop: ShopClient = running.client().unwrap();
    for _ in 0..3 {
        assert_eq!(shop.item("7").await.unwrap(), item());
    }
    let error = shop.item("7").await.unwrap_err();
    assert_eq!(error.kind(), CallErrorKind::CircuitBreakerOpen);
    // And a failure that is to be expected does not.
    server.change(|_| Reply::status(500).body("closed"));
    let running = app(toml("")).launch().await.unwrap();
    let shop: ShopClient = running.client().unwrap();
    for _ in 0..20 {
        let error = shop.item("7").await.unwrap_err();
        assert_eq!(error.kind(), CallErrorKind::Status);
    }
    server.change(|_| Reply::status(500).body("broken"));
    for _ in 0..3 {
        let error = shop.item("7").await.unwrap_err();
        assert_eq!(error.kind(), CallErrorKind::Status);
    }
    let error = shop.item("7").await.unwrap_err();
    assert_eq!(error.kind(), CallErrorKind::CircuitBreakerOpen);
}

#[tokio::test]
async fn a_judgment_that_nobody_asks_for_is_a_mistake() {
    let toml = "service.name = \"till\"\n[services.shop]\nurls = [\"http://localhost:1\"]\n\
                breaker.failures = [\"5xx\"]\n";
    let config = Config::from_toml("interline.toml", toml).unwrap();
    let app = App::new(config).named_only().publish_only();
    let app = app.judge("shop", |_| Signal::Success);
    let error = app.judge("shp", |_| Signal::Success).launch().await;
    let text = error.unwrap_err().to_string();
    for wanted in [
        "interline.toml:4",
        "services.shop.breaker.failures",
        "has no effect: the program judges the answers itself",
        "breakers.rs",
        "judges the answers of a service that is not configured",
        "did you mean `shop`?",
    ] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
}
