//! The layers of a server, around axum, with real requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use interline::http::server::{ContextLayer, RateLimitLayer};
use interline::http::{RequestContext, carry};
use interline::prelude::*;
use interline::testing::TestApp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::server::{Reply, Server};
use crate::shop::{ITEM, Shop, client, till};

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// A server of axum; it ends when it is dropped.
struct Axum {
    url: String,
    serving: JoinHandle<()>,
}

impl Axum {
    async fn start(routes: Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let serving = tokio::spawn(async move {
            axum::serve(listener, routes).await.unwrap();
        });
        Self { url, serving }
    }
}

impl Drop for Axum {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn header(name: &str, value: &str) -> CallOptions {
    CallOptions::new().header(name.parse().unwrap(), value.parse().unwrap())
}

#[tokio::test]
async fn what_a_request_brings_goes_on_with_the_calls_that_are_made_for_it() {
    let upstream = Server::start(|_| Reply::json(ITEM)).await;
    let shop = client(&[upstream.url()], "").await;
    let routes = Router::new().route(
        "/basket",
        get(move || {
            let shop = shop.clone();
            async move {
                let (first, second) = tokio::join!(shop.item("joined-1"), shop.item("joined-2"));
                let of_task = shop.clone();
                let carried = carry(async move { of_task.item("carried").await });
                let carried = tokio::spawn(carried).await.unwrap();
                let alone = tokio::spawn(async move { shop.item("alone").await });
                for result in [first, second, carried, alone.await.unwrap()] {
                    result.unwrap();
                }
                RequestContext::current()
                    .unwrap()
                    .correlation_id()
                    .to_owned()
            }
        }),
    );
    let server = Axum::start(routes.layer(ContextLayer::new())).await;
    let running = till(std::slice::from_ref(&server.url), "").await;
    let caller = running.manager().http_client("shop").unwrap();
    let caller = caller
        .with(header("correlation-id", "order-7"))
        .with(header("traceparent", PARENT))
        .with(header("tracestate", "a=1"))
        .with(CallOptions::new().timeout(Duration::from_secs(3)));
    let answer = caller.get("/basket").receive_bytes().await.unwrap();
    assert_eq!(answer, "order-7");
    let seen = upstream.seen();
    let of = |name: &str| {
        let found = seen.iter().find(|seen| seen.target.ends_with(name));
        found.unwrap()
    };
    let mut spans = Vec::new();
    for name in ["joined-1", "joined-2", "carried"] {
        let call = of(name);
        assert_eq!(call.header("correlation-id"), "order-7", "{name}");
        let parent = call.header("traceparent");
        assert_eq!(parent[..36], PARENT[..36], "{name}");
        spans.push(parent[36..52].to_owned());
        assert_eq!(call.header("tracestate"), "a=1", "{name}");
        let left: u64 = call.header("x-timeout-ms").parse().unwrap();
        assert!((1..=3_000).contains(&left), "{name}: {left}");
    }
    spans.push(PARENT[36..52].to_owned());
    spans.sort_unstable();
    spans.dedup();
    assert_eq!(spans.len(), 4, "each call is a span of its own");
    // What was spawned without help is on its own, with the limit of its own client.
    let alone = of("alone");
    assert_eq!(alone.header("correlation-id"), "");
    assert_ne!(alone.header("traceparent")[..36], PARENT[..36]);
    let left: u64 = alone.header("x-timeout-ms").parse().unwrap();
    assert!(left > 3_000, "{left}");
}

#[tokio::test]
async fn attempts_do_not_multiply_from_service_to_service() {
    let backend = Server::start(|_| Reply::status(503)).await;
    let lines = "breaker.enabled = false\nretry.attempts = 3\nretry.first = \"1ms\"";
    let shop = client(&[backend.url()], lines).await;
    let handler = get(async move || match shop.item("7").await {
        Ok(_) => StatusCode::OK,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    });
    let routes = Router::new().route("/", handler);
    let middle = Axum::start(routes.layer(ContextLayer::new())).await;
    let running = till(std::slice::from_ref(&middle.url), lines).await;
    let caller = running.manager().http_client("shop").unwrap();
    let error = caller.get("/").receive_nothing().await.unwrap_err();
    assert_eq!(error.attempts(), 3);
    // Three for the first attempt, and one for each of the others; not nine.
    assert_eq!(backend.count(), 5);
}

#[tokio::test]
async fn a_request_without_a_context_gets_one() {
    let routes = Router::new().route("/", get(async || "fine"));
    let server = Axum::start(routes.layer(ContextLayer::new())).await;
    let running = till(std::slice::from_ref(&server.url), "").await;
    let caller = running.manager().http_client("shop").unwrap();
    let forged = caller.with(header("correlation-id", "two words"));
    for caller in [caller, forged] {
        let answer = caller.get("/").receive_response::<String>().await;
        // It is no JSON, which is not what this is about.
        let headers = answer.unwrap_err().headers().clone();
        assert_eq!(headers["correlation-id"].len(), 32);
    }
}

struct Dropped(Arc<AtomicBool>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn a_request_ends_when_its_time_is_over() {
    let dropped = Arc::new(AtomicBool::new(false));
    let guard = Arc::clone(&dropped);
    let routes = Router::new().route(
        "/slow",
        get(move || {
            let guard = Dropped(Arc::clone(&guard));
            async move {
                std::future::pending::<()>().await;
                drop(guard);
            }
        }),
    );
    let layer = ContextLayer::new().timeout(Duration::from_millis(200));
    let server = Axum::start(routes.layer(layer)).await;
    let running = till(std::slice::from_ref(&server.url), "retry.attempts = 1").await;
    let caller = running.manager().http_client("shop").unwrap();
    let error = caller.get("/slow").receive_nothing().await.unwrap_err();
    assert_eq!(error.status().unwrap().as_u16(), 504);
    let detail = error.problem().unwrap().detail.as_deref();
    assert_eq!(detail, Some("not done within 200 ms"));
    assert!(dropped.load(Ordering::SeqCst));
}

#[tokio::test]
async fn a_limit_may_be_longer_than_the_clock_goes() {
    let deadline = async || {
        let context = RequestContext::current().expect("the layer is there");
        context.deadline().is_some().to_string()
    };
    let routes = Router::new().route("/", get(deadline));
    let layer = ContextLayer::new().timeout(Duration::MAX);
    let server = Axum::start(routes.layer(layer)).await;
    // Our own clients always say how long they wait.
    let address = server.url.trim_start_matches("http://");
    for (header, answer) in [("x-other", "false"), ("x-timeout-ms", "true")] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!("GET / HTTP/1.1\r\nhost: x\r\n{header}: 60000\r\n");
        let request = format!("{head}connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut whole = String::new();
        stream.read_to_string(&mut whole).await.unwrap();
        assert!(whole.ends_with(answer), "{whole}");
    }
}

#[tokio::test]
async fn a_request_that_comes_too_late_is_not_handled() {
    let handled = Arc::new(AtomicBool::new(false));
    let noted = Arc::clone(&handled);
    let handler = get(move || {
        noted.store(true, Ordering::SeqCst);
        async { "fine" }
    });
    let routes = Router::new().route("/", handler);
    let server = Axum::start(routes.layer(ContextLayer::new())).await;
    // Our own clients do not send what nobody waits for.
    let address = server.url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = "GET / HTTP/1.1\r\nhost: x\r\nx-timeout-ms: 0\r\ncorrelation-id: order-7\r\n\
                   connection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    assert!(answer.contains("nobody waited"), "{answer}");
    assert!(
        answer.contains("\r\ncorrelation-id: order-7\r\n"),
        "{answer}"
    );
    assert!(!handled.load(Ordering::SeqCst));
}

#[tokio::test]
async fn more_requests_than_are_taken_are_told_when_to_come_again() {
    let routes = Router::new().route("/", get(async || "fine"));
    let limit = RateLimitLayer::new(2, Duration::from_secs(3_600));
    let server = Axum::start(routes.layer(limit)).await;
    let running = till(std::slice::from_ref(&server.url), "retry.attempts = 1").await;
    let caller = running.manager().http_client("shop").unwrap();
    for _ in 0..2 {
        caller.get("/").receive_bytes().await.unwrap();
    }
    let error = caller.get("/").receive_bytes().await.unwrap_err();
    assert_eq!(error.status().unwrap().as_u16(), 429);
    let after: u64 = error.headers()["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((1_700..=1_800).contains(&after), "{after}");
    assert_eq!(error.retry_after(), Some(Duration::from_secs(after)));
    let title = error.problem().unwrap().title.as_deref();
    assert_eq!(title, Some("Too Many Requests"));
}

#[tokio::test]
async fn a_limit_by_header_is_one_for_each_value() {
    let routes = Router::new().route("/", get(async || "fine"));
    let tenant = "x-tenant".parse().unwrap();
    let limit = RateLimitLayer::by_header(1, Duration::from_secs(3_600), tenant);
    let server = Axum::start(routes.layer(limit)).await;
    let running = till(std::slice::from_ref(&server.url), "retry.attempts = 1").await;
    let caller = running.manager().http_client("shop").unwrap();
    for tenant in ["a", "b"] {
        let caller = caller.with(header("x-tenant", tenant));
        caller.get("/").receive_bytes().await.unwrap();
        let error = caller.get("/").receive_bytes().await.unwrap_err();
        assert_eq!(error.status().unwrap().as_u16(), 429, "{tenant}");
    }
    caller.get("/").receive_bytes().await.unwrap();
}

#[tokio::test]
async fn health_is_that_of_the_app() {
    let upstream = Server::start(|_| Reply::status(200)).await;
    let watched = till(&[upstream.url()], "").await;
    watched.ready(Duration::from_secs(10)).await.unwrap();
    let routes = Router::new().route("/", get(async || "fine"));
    let server = Axum::start(routes.layer(watched.health_layer())).await;
    let running = till(std::slice::from_ref(&server.url), "retry.attempts = 1").await;
    let caller = running.manager().http_client("shop").unwrap();
    assert_eq!(caller.endpoint().as_deref(), Some(&*server.url));
    caller.health_check().await.unwrap();
    caller.get("/health/live").receive_nothing().await.unwrap();
    assert_eq!(caller.get("/").receive_bytes().await.unwrap(), "fine");
    let other = caller.get("/health/other").receive_nothing().await;
    assert_eq!(other.unwrap_err().status().unwrap().as_u16(), 404);
    watched.stop_within(Duration::from_secs(10)).await;
    let error = caller.health_check().await.unwrap_err();
    assert_eq!(error.status().unwrap().as_u16(), 503);
    let body = String::from_utf8_lossy(error.body()).into_owned();
    assert!(body.contains("\"status\":\"down\""), "{body}");
}

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "baskets.opened", subscribers = optional)]
struct Opened {
    by: u32,
}

#[tokio::test]
async fn what_is_published_for_a_request_goes_on_with_its_trace() {
    let app = TestApp::new()
        .config(Config::new().with("service.name", "till"))
        .publish_only()
        .start()
        .await;
    let publisher = app.publisher();
    let routes = Router::new().route(
        "/",
        get(move || {
            let publisher = publisher.clone();
            async move {
                publisher.publish(&Opened { by: 1 }).await.unwrap();
                let alone = publisher.clone();
                let carried = carry(async move { publisher.publish(&Opened { by: 2 }).await });
                tokio::spawn(carried).await.unwrap().unwrap();
                let alone = async move { alone.publish(&Opened { by: 3 }).await };
                tokio::spawn(alone).await.unwrap().unwrap();
            }
        }),
    );
    let server = Axum::start(routes.layer(ContextLayer::new())).await;
    let address = server.url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "GET / HTTP/1.1\r\nhost: x\r\ncorrelation-id: order-7\r\ntraceparent: {PARENT}\r\n\
         tracestate: a=1\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let sent = app.envelopes::<Opened>();
    assert_eq!(sent.len(), 3);
    for (at, message) in sent.iter().enumerate() {
        let header = |name: &str| message.headers.text(name).unwrap_or_default().into_owned();
        let of_request = at < 2;
        let parent = header("traceparent");
        assert_eq!(parent[..36] == PARENT[..36], of_request, "{at}: {parent}");
        assert_ne!(parent[36..52], PARENT[36..52]);
        assert_eq!(header("correlation-id") == "order-7", of_request, "{at}");
        assert_eq!(header("tracestate") == "a=1", of_request, "{at}");
        assert_eq!(header("causation-id"), "");
    }
}
