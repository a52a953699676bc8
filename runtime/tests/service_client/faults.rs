//! What calls do about instances that fail, beside others that do not.

use std::time::{Duration, Instant};

use interline::http::{CallErrorKind, Sent};
use interline::prelude::*;
use interline::testing::{FaultProxy, ScriptedDiscovery, TestApp};

use crate::server::{Reply, Server};
use crate::shop::{HedgingShop, ITEM, Shop, ShopClient, ShopWithHedges, item, till};

/// So long that who waits for it fails the test by its time limit.
const NEVER: Duration = Duration::from_secs(60);

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

/// Two instances, of which one answers nothing any more and is left alone for it.
struct OneHangs {
    fine: Server,
    hanging: Server,
    /// How often the one that hangs was called until it was left alone.
    asked: usize,
    running: Running,
}

impl OneHangs {
    async fn start() -> Self {
        let fine = Server::start(|_| Reply::json(ITEM)).await;
        let hanging = Server::start(|_| Reply::json(ITEM).after(NEVER)).await;
        let lines = "balance = \"round_robin\"\nbreaker.open = \"60s\"\n\
                     breaker.minimum_calls = 1000";
        let running = till(&[fine.url(), hanging.url()], lines).await;
        let shop: ShopClient = running.client().expect("a configured service");
        let once = CallOptions::new()
            .timeout(Duration::from_millis(150))
            .no_retry();
        let hurried = shop.with(once);
        let http = running.manager().http_client("shop").unwrap();
        let is_left_alone = || {
            let mut all = http.endpoints().into_iter();
            all.any(|one| one.is_ejected && *one.url == *hanging.url())
        };
        // What is wrong with one is not to be taken for a fault of both.
        http.circuit().expect("it has one").force_closed();
        let begun = Instant::now();
        while !is_left_alone() {
            assert!(begun.elapsed() < Duration::from_secs(30));
            let _ = hurried.item("7").await;
        }
        // On a busy machine also the other one is late now and then.
        let asked = hanging.count();
        Self {
            asked,
            fine,
            hanging,
            running,
        }
    }
}

#[tokio::test]
async fn a_repeat_does_not_go_to_an_instance_that_is_known_to_hang() {
    let two = OneHangs::start().await;
    let shop: ShopClient = two.running.client().unwrap();
    // Each call needs a second attempt.
    two.fine.change(|seen| match seen.header("x-attempt") {
        "1" => Reply::status(503),
        _ => Reply::json(ITEM),
    });
    let begun = Instant::now();
    for _ in 0..20 {
        assert_eq!(shop.item("7").await.unwrap(), item());
    }
    assert!(
        begun.elapsed() < Duration::from_secs(4),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(two.hanging.count(), two.asked);
}

#[tokio::test]
async fn a_second_request_does_not_go_to_an_instance_that_is_known_to_hang() {
    let two = OneHangs::start().await;
    let shop: HedgingShop = two.running.client().unwrap();
    two.fine.change(|seen| match seen.header("x-attempt") {
        "1" => Reply::json(ITEM).after(NEVER),
        _ => Reply::json(ITEM),
    });
    let begun = Instant::now();
    for _ in 0..5 {
        assert_eq!(shop.item(7).await.unwrap(), item());
    }
    assert!(
        begun.elapsed() < Duration::from_secs(4),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(two.hanging.count(), two.asked);
}

#[tokio::test]
async fn what_was_sent_stays_sent_where_all_instances_are_gone_afterwards() {
    let server = Server::start(|_| Reply::status(201).after(NEVER)).await;
    let proxy = FaultProxy::start(server.address()).await.expect("a proxy");
    let toml = "service.name = \"till\"\n[services.shop]\nretry.first = \"1s\"\n\
                [services.shop.discovery]\npatience = \"10ms\"\n";
    let discovery = ScriptedDiscovery::new();
    discovery.endpoints("shop", [format!("http://{}", proxy.address())]);
    let app = TestApp::new()
        .config(Config::from_toml("interline.toml", toml).expect("TOML"))
        .discovery(&discovery)
        .publish_only()
        .start()
        .await;
    let shop: ShopClient = app.client();
    let call = tokio::spawn(async move { shop.add_once(&item()).await });
    until("the request", || server.count() == 1).await;
    let nowhere: [&str; 0] = [];
    discovery.endpoints("shop", nowhere);
    app.until_endpoints("shop", 0).await;
    proxy.reset_all().await;
    let error = call.await.unwrap().unwrap_err();
    // It may have been done, whatever became of the second attempt.
    assert_eq!(error.is_sent(), Sent::Maybe, "{error}");
    assert_eq!(
        (error.kind(), error.attempts(), server.count()),
        (CallErrorKind::ConnectionLost, 1, 1)
    );
    let text = error.to_string();
    assert!(text.contains("known any more"), "{text}");
}

#[tokio::test]
async fn one_instance_that_asks_for_time_does_not_keep_others_from_answering() {
    let busy = Server::start(|_| Reply::status(503).header("retry-after", "30")).await;
    let fine = Server::start(|_| Reply::json(ITEM)).await;
    let lines = "balance = \"round_robin\"\nbreaker.enabled = false";
    let running = till(&[busy.url(), fine.url()], lines).await;
    let shop: ShopClient = running.client().unwrap();
    let begun = Instant::now();
    for _ in 0..4 {
        assert_eq!(shop.item("7").await.unwrap(), item());
    }
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "{:?}",
        begun.elapsed()
    );
    assert!(busy.count() > 0);
    // Too many requests are too many for the service, whoever says so.
    busy.change(|_| Reply::status(429).header("retry-after", "30"));
    let asked = busy.count();
    let limited = async {
        loop {
            if let Err(error) = shop.item("7").await {
                break error;
            }
        }
    };
    let error = limited.await;
    assert_eq!(error.status().unwrap().as_u16(), 429);
    assert_eq!(error.retry_after(), Some(Duration::from_secs(30)));
    assert_eq!(busy.count(), asked + 1);
}

#[tokio::test]
async fn where_everybody_asks_for_time_they_get_it() {
    let script = |seen: &crate::server::Seen| match seen.header("x-attempt") {
        "1" | "2" => Reply::status(503).header("retry-after", "2"),
        _ => Reply::json(ITEM),
    };
    let (one, two) = (Server::start(script).await, Server::start(script).await);
    let running = till(&[one.url(), two.url()], "balance = \"round_robin\"").await;
    let shop: ShopClient = running.client().unwrap();
    let begun = Instant::now();
    assert_eq!(shop.item("7").await.unwrap(), item());
    // The second at once, the third when it may.
    assert!(
        begun.elapsed() >= Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
    assert!(
        begun.elapsed() < Duration::from_millis(3_900),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn a_failure_with_a_long_page_is_a_failure_like_any_other() {
    let long = |status| Reply::status(status).body("x".repeat(2_000));
    let server = Server::start(move |seen| match seen.number {
        0 => long(503),
        1 => long(502).pieces(&[(Duration::from_millis(5), "and more")]),
        _ => Reply::json(ITEM),
    })
    .await;
    let lines = "response_bytes_max = \"1KiB\"\nbreaker.consecutive = 3";
    let running = till(&[server.url()], lines).await;
    let shop: ShopClient = running.client().unwrap();
    assert_eq!(shop.item("7").await.unwrap(), item());
    assert_eq!(server.count(), 3);
    server.change(move |_| long(500));
    for _ in 0..3 {
        let error = shop.item("7").await.unwrap_err();
        assert_eq!(error.kind(), CallErrorKind::Status);
        assert_eq!(error.status().unwrap().as_u16(), 500);
        assert_eq!(error.body().len(), 1_024);
    }
    let error = shop.item("7").await.unwrap_err();
    assert_eq!(error.kind(), CallErrorKind::CircuitBreakerOpen);
    // Where it is long and right, it is too long.
    let server = Server::start(move |_| long(200)).await;
    let shop: ShopClient = crate::shop::client(&[server.url()], lines).await;
    let error = shop.item("7").await.unwrap_err();
    assert_eq!((error.kind(), server.count()), (CallErrorKind::TooLarge, 1));
}

#[tokio::test]
async fn an_instance_that_takes_calls_and_never_answers_does_not_take_them_with_it() {
    for balance in ["p2c_ewma", "round_robin"] {
        let fine = Server::start(|_| Reply::json(ITEM)).await;
        let behind = Server::start(|_| Reply::json(ITEM)).await;
        let hole = FaultProxy::start(behind.address()).await.expect("a proxy");
        hole.black_hole(true);
        let urls = [fine.url(), format!("http://{}", hole.address())];
        let lines = format!("balance = \"{balance}\"\nbreaker.open = \"60s\"");
        let running = till(&urls, &lines).await;
        let shop: ShopClient = running.client().unwrap();
        let shop = shop.with(CallOptions::new().timeout(Duration::from_millis(600)));
        for call in 0..30 {
            let found = shop.item("7").await;
            assert_eq!(found.unwrap(), item(), "{balance}, call {call}");
        }
        assert_eq!((fine.count(), behind.count()), (30, 0), "{balance}");
        if balance == "round_robin" {
            // It was found out by five of them.
            let shop = running.manager().http_client("shop").unwrap();
            let ejected = shop.endpoints().into_iter().find(|one| one.is_ejected);
            assert_eq!(*ejected.expect("one is left alone").url, *urls[1]);
        }
    }
}

#[tokio::test]
async fn one_that_is_slow_may_take_all_the_time_there_is() {
    // Longer than half of it, at each of them.
    let slow = |_: &crate::server::Seen| Reply::json(ITEM).after(Duration::from_millis(700));
    let (one, two) = (Server::start(slow).await, Server::start(slow).await);
    let running = till(&[one.url(), two.url()], "").await;
    let shop: ShopClient = running.client().unwrap();
    let hurried = shop.with(CallOptions::new().timeout(Duration::from_secs(1)));
    for call in 1..=3 {
        assert_eq!(hurried.item("7").await.unwrap(), item());
        assert_eq!(one.count() + two.count(), 2 * call);
    }
    // Nothing is sent twice that may not be, or that has a limit of its own.
    let before = one.count() + two.count();
    hurried.change("7", 1).await.unwrap();
    let lines = "attempt_timeout = \"900ms\"";
    let running = till(&[one.url(), two.url()], lines).await;
    let shop: ShopClient = running.client().unwrap();
    let hurried = shop.with(CallOptions::new().timeout(Duration::from_secs(1)));
    hurried.item("7").await.unwrap();
    assert_eq!(one.count() + two.count(), before + 2);
}

#[tokio::test]
async fn a_crowd_of_calls_makes_no_crowd_of_connections() {
    let slow = |_: &crate::server::Seen| Reply::json(ITEM).after(Duration::from_millis(5));
    let server = Server::start(slow).await;
    let lines = "concurrency = 8\nqueue = 1000";
    let running = till(&[server.url()], lines).await;
    let shop: ShopClient = running.client().unwrap();
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..400 {
        let shop = shop.clone();
        calls.spawn(async move { shop.item("7").await });
    }
    for result in calls.join_all().await {
        assert_eq!(result.unwrap(), item());
    }
    // One that was begun is kept although another was free sooner.
    assert!(
        (1..=16).contains(&server.connections()),
        "{}",
        server.connections()
    );
}
