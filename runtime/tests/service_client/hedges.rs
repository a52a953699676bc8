//! Second requests beside slow ones.

use std::time::{Duration, Instant};

use interline::CallOptions;
use interline::http::CallErrorKind;
use interline::observability::metrics::{CIRCUIT_CHANGES, CLIENT_ATTEMPTS, HEDGES};

use crate::server::{Reply, Server};
use crate::shop::{
    HedgingShop, ITEM, Shop, ShopClient, ShopWithHedges, client, item, measured, till,
};

/// So long that who waits for it fails the test by its time limit.
const NEVER: Duration = Duration::from_secs(60);

#[tokio::test]
async fn the_second_request_answers_for_one_that_hangs() {
    let hanging = Server::start(|_| Reply::json(ITEM).after(NEVER)).await;
    let fine = Server::start(|_| Reply::json(ITEM)).await;
    let urls = [hanging.url(), fine.url()];
    // In turn, and the second requests are turns too: at most one call begins at the other.
    let lines = "balance = \"round_robin\"\nbreaker.consecutive = 1\nhedge.share = 1.0";
    let (running, metrics) = measured(&urls, lines).await;
    let shop: HedgingShop = running.client().unwrap();
    let begun = Instant::now();
    for _ in 0..10 {
        assert_eq!(shop.item(7).await.unwrap(), item());
        shop.add_once(&item()).await.unwrap();
    }
    assert!(begun.elapsed() < Duration::from_secs(5));
    let hedges = hanging.count();
    assert!((19..=20).contains(&hedges), "{hedges}");
    assert_eq!(metrics.sum(HEDGES, &[("outcome", "won")]), hedges as f64);
    // The second one says so, and carries the same key.
    let seen = fine.seen();
    let second = seen.iter().filter(|seen| seen.header("x-attempt") == "2");
    assert_eq!(second.count(), hedges);
    for first in hanging.seen() {
        let key = first.header("idempotency-key");
        assert_eq!(first.header("x-attempt"), "1");
        assert!(
            seen.iter()
                .any(|seen| seen.header("idempotency-key") == key)
        );
    }
    // Who was slower has not failed.
    assert_eq!(metrics.sum(CLIENT_ATTEMPTS, &[("outcome", "failed")]), 0.0);
    assert_eq!(metrics.sum(CIRCUIT_CHANGES, &[]), 0.0);
}

#[tokio::test]
async fn what_may_not_be_repeated_is_sent_once() {
    let slow = |_: &_| Reply::status(204).after(Duration::from_millis(60));
    let server = Server::start(slow).await;
    let shop: ShopClient = client(&[server.url()], "hedge.after = \"5ms\"").await;
    shop.add(&item()).await.unwrap();
    shop.change("7", 1).await.unwrap();
    assert_eq!(server.count(), 2);
    shop.with(CallOptions::new().no_retry())
        .set("7", item())
        .await
        .unwrap();
    assert_eq!(server.count(), 3);
    shop.set("7", item()).await.unwrap();
    assert_eq!(server.count(), 5);
}

#[tokio::test]
async fn second_requests_end_where_all_is_slow() {
    let slow = |_: &_| Reply::status(503).after(Duration::from_millis(20));
    let server = Server::start(slow).await;
    let lines =
        "hedge.after = \"2ms\"\nbreaker.enabled = false\nretry.floor = 0\nretry.budget = 0.0";
    let (running, metrics) = measured(&[server.url()], lines).await;
    let shop: ShopClient = running.client().unwrap();
    for _ in 0..60 {
        let error = shop.item("7").await.unwrap_err();
        assert_eq!(error.status().unwrap().as_u16(), 503);
    }
    assert_eq!(
        server.count(),
        70,
        "ten were saved up, and nothing earned more"
    );
    assert_eq!(metrics.sum(HEDGES, &[("outcome", "lost")]), 10.0);
}

#[tokio::test]
async fn a_failure_waits_for_the_request_that_is_on_its_way() {
    // The first fails after the second was sent; the second succeeds later.
    let server = Server::start(|seen| match seen.header("x-attempt") {
        "1" => Reply::status(503).after(Duration::from_millis(100)),
        _ => Reply::json(ITEM).after(Duration::from_millis(200)),
    })
    .await;
    let lines = "hedge.after = \"20ms\"\nretry.budget = 0.0\nretry.floor = 0";
    let shop = client(&[server.url()], lines).await;
    assert_eq!(shop.item("7").await.unwrap(), item());
    assert_eq!(server.count(), 2);
    // An answer that stays wrong is an answer.
    server.change(|seen| match seen.header("x-attempt") {
        "1" => Reply::status(404).after(Duration::from_millis(100)),
        _ => Reply::json(ITEM).after(NEVER),
    });
    let error = shop.item("7").await.unwrap_err();
    assert_eq!((error.kind(), error.attempts()), (CallErrorKind::Status, 2));
}

#[tokio::test]
async fn the_second_request_comes_when_the_first_takes_longer_than_usual() {
    let server = Server::start(|_| Reply::json(ITEM).after(Duration::from_millis(20))).await;
    let lines = "hedge.percentile = 95\nhedge.share = 1.0";
    let (running, metrics) = measured(&[server.url()], lines).await;
    let shop: ShopClient = running.client().unwrap();
    // As long as nobody knows what is usual there is no second one.
    for _ in 0..20 {
        assert_eq!(shop.item("7").await.unwrap(), item());
    }
    assert_eq!(server.count(), 20);
    server.change(|seen| match seen.header("x-attempt") {
        "1" => Reply::json(ITEM).after(NEVER),
        _ => Reply::json(ITEM),
    });
    let begun = Instant::now();
    assert_eq!(shop.item("7").await.unwrap(), item());
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(20), "{took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(metrics.sum(HEDGES, &[("outcome", "won")]), 1.0);
    // What one method usually takes says nothing of another.
    server.change(|_| Reply::status(404).after(Duration::from_millis(300)));
    let before = server.count();
    let error = shop.maybe(7).await;
    assert!(error.unwrap().is_none());
    assert_eq!(server.count(), before + 1);
    // Nor does it cut the least that is waited for.
    let lines = "hedge.percentile = 50\nhedge.after = \"60s\"";
    let shop: ShopClient = client(&[server.url()], lines).await;
    server.change(|seen| match seen.number % 2 {
        0 => Reply::json(ITEM).after(Duration::from_millis(30)),
        _ => Reply::json(ITEM),
    });
    let before = server.count();
    for _ in 0..40 {
        shop.item("7").await.unwrap();
    }
    assert_eq!(server.count(), before + 40);
}

#[tokio::test]
async fn a_second_request_at_half_of_the_time_that_is_not_sent_is_no_repeat() {
    let late = |_: &_| Reply::status(503).after(Duration::from_millis(2_500));
    let (one, two) = (Server::start(late).await, Server::start(late).await);
    // One repeat may be made. The rate allows the first request and no second one, also later.
    let lines = "timeout = \"4s\"\nretry.budget = 1.0\nretry.floor = 0\nretry.first = \"1ms\"\n\
                 rate.count = 1\nrate.per = \"1h\"";
    let running = till(&[one.url(), two.url()], lines).await;
    let shop = running.manager().http_client("shop").unwrap();
    let error = shop.get("/item").receive_nothing().await.unwrap_err();
    assert_eq!(one.count() + two.count(), 1);
    let text = error.to_string();
    assert!(
        text.contains("the rate allows no further attempt"),
        "{text}"
    );
}

#[tokio::test]
async fn no_second_request_goes_to_one_that_is_not_answering() {
    let late = |_: &_| Reply::json(ITEM).after(Duration::from_millis(2_500));
    let (one, two) = (Server::start(late).await, Server::start(late).await);
    let running = till(&[one.url(), two.url()], "timeout = \"4s\"").await;
    let shop = running.manager().http_client("shop").unwrap();
    let calling = tokio::spawn({
        let shop = shop.clone();
        async move { shop.get("/item").receive_nothing().await }
    });
    let begun = Instant::now();
    while one.count() + two.count() == 0 {
        assert!(begun.elapsed() < Duration::from_secs(30), "nobody is asked");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // Before half of the time is over, the other one is left alone.
    let asked = if one.count() == 1 {
        one.url()
    } else {
        two.url()
    };
    let endpoints = shop.endpoints();
    let mut others = endpoints.iter().filter(|other| *other.url != *asked);
    let other = others.next().unwrap().circuit.clone();
    other.unwrap().force_open();
    calling.await.unwrap().unwrap();
    assert_eq!(one.count() + two.count(), 1);
}

#[tokio::test]
async fn a_second_request_that_is_not_sent_costs_nothing_of_what_may_be_sent() {
    let slow = |_: &_| Reply::json(ITEM).after(Duration::from_millis(20));
    let server = Server::start(slow).await;
    // Nothing is earned, and ten are saved up.
    let lines = "hedge.after = \"1ms\"\nhedge.share = 0.000001\nrate.count = 1\nrate.per = \"50ms\"\n\
                 rate.burst = 2\nrate.wait = \"5s\"";
    let (running, metrics) = measured(&[server.url()], lines).await;
    let shop: ShopClient = running.client().unwrap();
    // The next turn is that of the next call, and none is left for a second request.
    for _ in 0..20 {
        assert_eq!(shop.item("7").await.unwrap(), item());
    }
    let hedges = || metrics.sum(HEDGES, &[]);
    let sent = hedges();
    assert!(sent < 10.0, "{sent}");
    // After a pause there is one.
    let begun = Instant::now();
    while hedges() == sent {
        assert!(begun.elapsed() < Duration::from_secs(30), "none is sent");
        tokio::time::sleep(Duration::from_millis(150)).await;
        assert_eq!(shop.item("7").await.unwrap(), item());
    }
}
