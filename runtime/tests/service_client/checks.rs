//! Endpoints that are asked how they are.

use std::time::{Duration, Instant};

use interline::Running;
use interline::prelude::*;
use interline::testing::{FaultProxy, ScriptedDiscovery, TestApp};

use crate::server::{Reply, Server};
use crate::shop::{ITEM, Shop, ShopClient, item, till};

const HTTP: &str =
    "retry.attempts = 1\nhealth = { path = \"/ready\", every = \"20ms\", timeout = \"200ms\" }";
const TCP: &str =
    "retry.attempts = 1\nhealth = { kind = \"tcp\", every = \"20ms\", timeout = \"200ms\" }";

async fn until(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "not within 30 s: {what}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn unhealthy(running: &Running) -> usize {
    running.health().services[0].unhealthy
}

fn calls(server: &Server) -> usize {
    server
        .seen()
        .iter()
        .filter(|seen| seen.target != "/ready")
        .count()
}

/// It says of itself that it is `ready`, or not; and answers calls all the same.
fn reply(ready: bool) -> impl Fn(&crate::server::Seen) -> Reply {
    move |seen| match &*seen.target {
        "/ready" if !ready => Reply::status(503),
        "/ready" => Reply::status(204),
        _ => Reply::json(ITEM),
    }
}

#[tokio::test]
async fn an_endpoint_that_says_it_is_not_ready_gets_no_calls_until_it_is() {
    let (one, two) = (
        Server::start(reply(true)).await,
        Server::start(reply(true)).await,
    );
    let running = till(&[one.url(), two.url()], HTTP).await;
    let shop: ShopClient = running.client().unwrap();
    until("checks", || one.count() >= 2 && two.count() >= 2).await;
    assert_eq!(unhealthy(&running), 0);
    two.change(reply(false));
    until("an unhealthy one", || unhealthy(&running) == 1).await;
    let before = calls(&two);
    for _ in 0..50 {
        assert_eq!(shop.item("7").await.unwrap(), item());
    }
    assert_eq!((calls(&one), calls(&two)), (50, before));
    two.change(reply(true));
    until("no unhealthy one", || unhealthy(&running) == 0).await;
    while calls(&two) == before {
        shop.item("7").await.unwrap();
    }
    running.stop_within(Duration::from_secs(5)).await;
    // Nobody is asked any more when the app is down.
    let (asked, _) = (
        two.count(),
        tokio::time::sleep(Duration::from_millis(200)).await,
    );
    assert!(two.count() <= asked + 1);
}

#[tokio::test]
async fn an_endpoint_that_cannot_be_reached_costs_no_call() {
    let (one, two) = (
        Server::start(reply(true)).await,
        Server::start(reply(true)).await,
    );
    let proxy = FaultProxy::start(two.address()).await.expect("a proxy");
    let urls = [one.url(), format!("http://{}", proxy.address())];
    let running = till(&urls, TCP).await;
    let shop: ShopClient = running.client().unwrap();
    proxy.refuse(true).await.expect("a proxy");
    until("an unhealthy one", || unhealthy(&running) == 1).await;
    for _ in 0..50 {
        assert_eq!(shop.item("7").await.unwrap(), item());
    }
    assert_eq!((calls(&one), calls(&two)), (50, 0));
    proxy.refuse(false).await.expect("a proxy");
    until("no unhealthy one", || unhealthy(&running) == 0).await;
    while calls(&two) == 0 {
        shop.item("7").await.unwrap();
    }
    running.stop_within(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn where_none_is_healthy_they_are_called_all_the_same() {
    let server = Server::start(reply(false)).await;
    let running = till(&[server.url()], HTTP).await;
    let shop: ShopClient = running.client().unwrap();
    until("an unhealthy one", || unhealthy(&running) == 1).await;
    for _ in 0..10 {
        assert_eq!(shop.item("7").await.unwrap(), item());
    }
    running.stop_within(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn where_hardly_any_is_healthy_all_are_called() {
    let mut servers = Vec::new();
    for _ in 0..10 {
        servers.push(Server::start(reply(true)).await);
    }
    let urls: Vec<_> = servers.iter().map(Server::url).collect();
    let lines = format!("{HTTP}\nbalance = \"round_robin\"");
    let running = till(&urls, &lines).await;
    let shop: ShopClient = running.client().unwrap();
    let shares = async || {
        let before: Vec<_> = servers.iter().map(calls).collect();
        for _ in 0..100 {
            assert_eq!(shop.item("7").await.unwrap(), item());
        }
        let after = servers.iter().map(calls);
        after
            .zip(before)
            .map(|(after, before)| after - before)
            .collect::<Vec<_>>()
    };
    // As many as may be left alone without the rest having too much to do.
    servers[..5].iter().for_each(|one| one.change(reply(false)));
    until("five unhealthy ones", || unhealthy(&running) == 5).await;
    let spread = shares().await;
    assert_eq!(spread[..5].iter().sum::<usize>(), 0, "{spread:?}");
    assert!(spread[5..].iter().all(|calls| *calls > 0), "{spread:?}");
    // A path that is broken everywhere but at one is hardly their fault.
    servers[5..9]
        .iter()
        .for_each(|one| one.change(reply(false)));
    until("nine unhealthy ones", || unhealthy(&running) == 9).await;
    assert_eq!(shares().await, [10; 10]);
    running.stop_within(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn those_that_are_gone_are_not_checked_and_new_ones_are() {
    let discovery = ScriptedDiscovery::new();
    let (one, two) = (
        Server::start(reply(true)).await,
        Server::start(reply(false)).await,
    );
    discovery.endpoints("shop", [one.url()]);
    let toml =
        format!("service.name = \"till\"\n[services.shop]\n{HTTP}\n[services.shop.discovery]\n");
    let app = TestApp::new()
        .config(Config::from_toml("interline.toml", &toml).expect("TOML"))
        .discovery(&discovery)
        .publish_only()
        .start()
        .await;
    until("a check", || one.count() > 0).await;
    discovery.endpoints("shop", [two.url()]);
    app.until_endpoints("shop", 1).await;
    until("checks of the new one", || two.count() >= 3).await;
    let before = one.count();
    until("more checks", || two.count() >= 10).await;
    assert_eq!(one.count(), before);
}

#[tokio::test]
async fn a_service_is_checked_when_somebody_asks() {
    let one = Server::start(reply(true)).await;
    let gone = Server::start(reply(true)).await.url();
    let running = till(&[one.url(), gone.clone()], "").await;
    // The port is closed when the server is, but for a moment.
    let discovery = running.manager().discovery();
    let begun = Instant::now();
    let checks = loop {
        let checks = discovery.health_check_service("shop").await.unwrap();
        if checks.iter().any(|check| check.result.is_err()) {
            break checks;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "{checks:?}");
    };
    assert_eq!(checks.len(), 2);
    for check in &checks {
        assert_eq!(
            check.result.is_err(),
            check.endpoint.url() == gone,
            "{check:?}"
        );
    }
    assert!(discovery.health_check_service("shops").await.is_err());
    running.stop_within(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn whoever_asks_how_a_service_is_asks_as_the_configuration_says() {
    // Its own path, and none of ours.
    let only_ready = |ready: bool| {
        move |seen: &crate::server::Seen| match &*seen.target {
            "/ready" if ready => Reply::status(204),
            "/ready" => Reply::status(503),
            _ => Reply::status(404),
        }
    };
    let server = Server::start(only_ready(true)).await;
    let quiet = "health = { path = \"/ready\", every = \"1h\", timeout = \"1s\" }";
    let running = till(&[server.url()], quiet).await;
    let shop = running.manager().http_client("shop").unwrap();
    let discovery = running.manager().discovery();
    shop.health_check().await.unwrap();
    let checks = discovery.health_check_service("shop").await.unwrap();
    assert!(checks[0].result.is_ok(), "{checks:?}");
    server.change(only_ready(false));
    let error = shop.health_check().await.unwrap_err();
    assert_eq!(error.status().unwrap().as_u16(), 503);
    let checks = discovery.health_check_service("shop").await.unwrap();
    let why = checks[0].result.as_ref().unwrap_err();
    assert_eq!(why, "answers 503 Service Unavailable");
    assert_eq!(server.count(), 4);
    running.stop_within(Duration::from_secs(5)).await;
    // Where a connection is enough, nothing is asked.
    let quiet = "health = { kind = \"tcp\", every = \"1h\" }";
    let proxy = FaultProxy::start(server.address()).await.expect("a proxy");
    let running = till(&[format!("http://{}", proxy.address())], quiet).await;
    let shop = running.manager().http_client("shop").unwrap();
    let discovery = running.manager().discovery();
    shop.health_check().await.unwrap();
    let checks = discovery.health_check_service("shop").await.unwrap();
    assert!(checks[0].result.is_ok(), "{checks:?}");
    proxy.refuse(true).await.expect("a proxy");
    let error = shop.health_check().await.unwrap_err();
    assert_eq!(error.kind(), interline::http::CallErrorKind::Connect);
    let checks = discovery.health_check_service("shop").await.unwrap();
    assert!(checks[0].result.is_err(), "{checks:?}");
    assert_eq!(server.count(), 4);
    running.stop_within(Duration::from_secs(5)).await;
}
