//! Answers that are kept.

use std::sync::Arc;
use std::time::Duration;

use interline::http::Response;
use interline::observability::metrics::{CLIENT_CACHE, InMemoryMetrics};
use interline::prelude::*;
use tokio::task::JoinSet;

use crate::server::{Reply, Seen, Server};

#[service_client(service = "shop", timeout = "5s", retry(attempts = 1))]
trait Stand {
    #[get("/left/{id}")]
    #[cache(ttl = "60s")]
    async fn left(&self, id: u32) -> Result<Response<u32>, CallError>;

    #[get("/old/{id}")]
    #[cache(stale_while_revalidate = "60s")]
    async fn aging(&self, id: u32) -> Result<u32, CallError>;

    #[get("/safe/{id}")]
    #[cache(stale_if_error = "60s")]
    async fn covered(&self, id: u32) -> Result<u32, CallError>;

    #[get("/theirs")]
    #[cache]
    async fn as_they_say(&self) -> Result<u32, CallError>;

    #[put("/left/{id}")]
    async fn set(&self, id: u32, #[body] left: u32) -> Result<(), CallError>;
}

struct Till {
    stand: StandClient,
    metrics: InMemoryMetrics,
}

impl Till {
    async fn new(server: &Server, lines: &str) -> Self {
        let url = server.url();
        let toml = format!("service.name = \"till\"\n[services.shop]\nurls = [\"{url}\"]\n{lines}");
        let config = Config::from_toml("interline.toml", &toml).unwrap();
        let metrics = InMemoryMetrics::default();
        let app = App::new(config).named_only().publish_only();
        let app = app.metrics(Arc::new(metrics.clone()));
        let running = app.launch().await.unwrap();
        let stand = running.client().unwrap();
        Self { stand, metrics }
    }

    /// hit, miss, revalidated, stale, coalesced
    fn counts(&self) -> [f64; 5] {
        ["hit", "miss", "revalidated", "stale", "coalesced"].map(|outcome| {
            let labels = [("service", "shop"), ("outcome", outcome)];
            self.metrics.sum(CLIENT_CACHE, &labels)
        })
    }
}

/// The number of the request, from 1.
fn number(seen: &Seen) -> Reply {
    Reply::json(&(seen.number + 1).to_string())
}

/// An answer whose time was over before it came, so that no test has to wait for that.
fn old(seen: &Seen) -> Reply {
    let reply = number(seen).header("age", "10");
    reply.header("cache-control", "max-age=5")
}

fn as_somebody(name: &str) -> CallOptions {
    let value = format!("Bearer {name}").parse().unwrap();
    CallOptions::new().header("authorization".parse().unwrap(), value)
}

#[tokio::test]
async fn a_fresh_answer_is_not_asked_for_again_and_belongs_to_one_identity() {
    let server = Server::start(number).await;
    let till = Till::new(&server, "").await;
    let first = till.stand.left(1).await.unwrap();
    let second = till.stand.left(1).await.unwrap();
    assert_eq!((first.body, first.attempts), (1, 1));
    assert_eq!((second.body, second.attempts), (1, 0));
    assert!(second.headers.contains_key("age"), "{:?}", second.headers);
    assert!(!second.headers.contains_key("cache-control"));
    assert_eq!(till.counts(), [1.0, 1.0, 0.0, 0.0, 0.0]);
    // What another asks for, and who another is, is another answer.
    assert_eq!(till.stand.left(2).await.unwrap().body, 2);
    let (ada, tony) = (
        till.stand.with(as_somebody("ada")),
        till.stand.with(as_somebody("tony")),
    );
    assert_eq!(ada.left(1).await.unwrap().body, 3);
    assert_eq!(tony.left(1).await.unwrap().body, 4);
    assert_eq!(ada.left(1).await.unwrap().body, 3);
    assert_eq!(server.count(), 4);
    // Who wants it from the service gets it from there.
    let header = "no-cache".parse().unwrap();
    let options = CallOptions::new().header("cache-control".parse().unwrap(), header);
    assert_eq!(till.stand.with(options).left(1).await.unwrap().body, 5);
    assert_eq!(till.stand.left(1).await.unwrap().body, 5);
}

#[tokio::test]
async fn what_the_service_does_not_want_kept_is_not_kept() {
    for refusal in ["no-store", "no-cache", "max-age=0"] {
        let server = Server::start(move |seen| number(seen).header("cache-control", refusal)).await;
        let till = Till::new(&server, "").await;
        assert_eq!(till.stand.left(1).await.unwrap().body, 1, "{refusal}");
        assert_eq!(till.stand.left(1).await.unwrap().body, 2, "{refusal}");
    }
    // What says nothing is not kept where the method says nothing either.
    let server = Server::start(number).await;
    let till = Till::new(&server, "").await;
    till.stand.as_they_say().await.unwrap();
    assert_eq!(till.stand.as_they_say().await.unwrap(), 2);
    server.change(|seen| number(seen).header("cache-control", "private, max-age=60"));
    assert_eq!(till.stand.as_they_say().await.unwrap(), 3);
    assert_eq!(till.stand.as_they_say().await.unwrap(), 3);
}

#[tokio::test]
async fn what_may_have_changed_is_asked_for_by_its_tag() {
    let server = Server::start(|seen| {
        let reply = match seen.header("if-none-match") {
            "\"a\"" => Reply::status(304),
            "" => Reply::json("1"),
            other => panic!("{other}"),
        };
        let reply = reply.header("etag", "\"a\"");
        reply.header("cache-control", "no-cache")
    })
    .await;
    let till = Till::new(&server, "").await;
    for _ in 0..3 {
        assert_eq!(till.stand.left(1).await.unwrap().body, 1);
    }
    assert_eq!(server.count(), 3);
    assert_eq!(till.counts(), [0.0, 1.0, 2.0, 0.0, 0.0]);
    server.change(|_| Reply::json("2").header("etag", "\"b\""));
    assert_eq!(till.stand.left(1).await.unwrap().body, 2);
    assert_eq!(server.seen()[3].header("if-none-match"), "\"a\"");
}

#[tokio::test]
async fn an_aging_answer_stands_in_while_another_is_asked_for() {
    let server = Server::start(old).await;
    let till = Till::new(&server, "").await;
    assert_eq!(till.stand.aging(1).await.unwrap(), 1);
    // The next one takes its time, and nobody waits for it.
    server.change(|seen| {
        let reply = number(seen).header("cache-control", "max-age=60");
        reply.after(Duration::from_millis(300))
    });
    for _ in 0..5 {
        assert_eq!(till.stand.aging(1).await.unwrap(), 1);
    }
    assert_eq!(till.counts()[3], 5.0);
    while till.stand.aging(1).await.unwrap() == 1 {
        tokio::task::yield_now().await;
    }
    assert_eq!(till.stand.aging(1).await.unwrap(), 2);
    assert_eq!(server.count(), 2);
}

#[tokio::test]
async fn an_old_answer_covers_for_a_service_that_fails_but_not_for_a_refusal() {
    let server = Server::start(old).await;
    let till = Till::new(&server, "").await;
    assert_eq!(till.stand.covered(1).await.unwrap(), 1);
    server.change(|_| Reply::status(503));
    assert_eq!(till.stand.covered(1).await.unwrap(), 1);
    assert_eq!(server.count(), 2);
    assert_eq!(till.counts(), [0.0, 1.0, 0.0, 1.0, 0.0]);
    server.change(|_| Reply::status(404));
    let error = till.stand.covered(1).await.unwrap_err();
    assert_eq!(error.status().unwrap().as_u16(), 404);
    // Of a service that wants to be asked nothing old is used.
    server.change(|seen| {
        let strict = "max-age=5, must-revalidate";
        let reply = number(seen).header("age", "10");
        reply
            .header("etag", "\"x\"")
            .header("cache-control", strict)
    });
    assert_eq!(till.stand.covered(2).await.unwrap(), 4);
    server.change(|_| Reply::status(503));
    let error = till.stand.covered(2).await.unwrap_err();
    assert_eq!(error.status().unwrap().as_u16(), 503);
}

async fn all(calls: JoinSet<Result<Response<u32>, CallError>>) -> Vec<u32> {
    let results = calls.join_all().await.into_iter();
    results.map(|result| result.unwrap().body).collect()
}

#[tokio::test]
async fn the_same_call_at_the_same_time_is_made_once() {
    let server = Server::start(|seen| number(seen).after(Duration::from_millis(300))).await;
    let till = Till::new(&server, "").await;
    let mut calls = JoinSet::new();
    for _ in 0..20 {
        let stand = till.stand.clone();
        calls.spawn(async move { stand.left(1).await });
    }
    assert_eq!(all(calls).await, [1; 20]);
    assert_eq!(server.count(), 1);
    assert_eq!(till.counts(), [0.0, 1.0, 0.0, 0.0, 19.0]);
}

#[tokio::test]
async fn those_who_wait_are_answered_when_the_first_is_gone() {
    let server = Server::start(|seen| number(seen).after(Duration::from_millis(300))).await;
    let till = Till::new(&server, "").await;
    let stand = till.stand.clone();
    let first = tokio::spawn(async move { stand.left(1).await });
    while server.count() == 0 {
        tokio::task::yield_now().await;
    }
    let mut calls = JoinSet::new();
    for _ in 0..3 {
        let stand = till.stand.clone();
        calls.spawn(async move { stand.left(1).await });
    }
    while till.counts()[4] < 3.0 {
        tokio::task::yield_now().await;
    }
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    assert_eq!(all(calls).await, [1; 3]);
    assert_eq!(server.count(), 1);
}

#[tokio::test]
async fn those_who_wait_longer_than_the_first_can_ask_again() {
    let server = Server::start(|seen| match seen.number {
        0 => number(seen).after(Duration::from_secs(60)),
        _ => number(seen),
    })
    .await;
    let till = Till::new(&server, "").await;
    let short = CallOptions::new().timeout(Duration::from_millis(200));
    let short = till.stand.with(short);
    let first = tokio::spawn(async move { short.left(1).await });
    while server.count() == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(till.stand.left(1).await.unwrap().body, 2);
    assert!(first.await.unwrap().unwrap_err().is_timeout());
}

#[tokio::test]
async fn an_answer_that_is_meant_for_one_is_given_to_one() {
    let server = Server::start(|seen| {
        let reply = number(seen).header("cache-control", "no-store");
        reply.after(Duration::from_millis(100))
    })
    .await;
    let till = Till::new(&server, "").await;
    let mut calls = JoinSet::new();
    for _ in 0..3 {
        let stand = till.stand.clone();
        calls.spawn(async move { stand.left(1).await });
    }
    let mut numbers = all(calls).await;
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2, 3]);
}

#[tokio::test]
async fn what_was_written_to_is_asked_for_again() {
    let server = Server::start(number).await;
    let till = Till::new(&server, "").await;
    assert_eq!(till.stand.left(1).await.unwrap().body, 1);
    assert_eq!(till.stand.left(1).await.unwrap().body, 1);
    till.stand.set(1, 7).await.unwrap();
    assert_eq!(till.stand.left(1).await.unwrap().body, 3);
}

#[tokio::test]
async fn the_configuration_switches_it_off() {
    let server = Server::start(number).await;
    let till = Till::new(&server, "cache.enabled = false").await;
    till.stand.left(1).await.unwrap();
    assert_eq!(till.stand.left(1).await.unwrap().body, 2);
    assert_eq!(till.counts(), [0.0; 5]);
}

#[tokio::test]
async fn what_was_perhaps_written_to_is_asked_for_again() {
    let server = Server::start(|seen| match seen.method.as_str() {
        "PUT" => Reply::status(204).after(Duration::from_secs(60)),
        _ => number(seen),
    })
    .await;
    let till = Till::new(&server, "").await;
    assert_eq!(till.stand.left(1).await.unwrap().body, 1);
    let stand = till.stand.clone();
    let writing = tokio::spawn(async move { stand.set(1, 7).await });
    while server.count() < 2 {
        tokio::task::yield_now().await;
    }
    // The service has it, and may do it, whether somebody waits or not.
    writing.abort();
    assert!(writing.await.unwrap_err().is_cancelled());
    assert_eq!(till.stand.left(1).await.unwrap().body, 3);
}

#[tokio::test]
async fn those_who_may_try_again_do_so_when_the_first_may_not() {
    let server = Server::start(|seen| match seen.number {
        0 => Reply::status(503).after(Duration::from_millis(300)),
        _ => number(seen),
    })
    .await;
    let till = Till::new(&server, "methods.left.retry.attempts = 3").await;
    let once = till.stand.with(CallOptions::new().no_retry());
    let first = tokio::spawn(async move { once.left(1).await });
    while server.count() == 0 {
        tokio::task::yield_now().await;
    }
    let mut calls = JoinSet::new();
    for _ in 0..3 {
        let stand = till.stand.clone();
        calls.spawn(async move { stand.left(1).await });
    }
    while till.counts()[4] < 3.0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(all(calls).await, [2; 3]);
    let error = first.await.unwrap().unwrap_err();
    assert_eq!(error.status().unwrap().as_u16(), 503);
    assert_eq!(server.count(), 2, "the three asked again as one");
}
