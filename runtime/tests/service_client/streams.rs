//! Answers that are read while they come, and what they take until they have.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use interline::http::{ByteStream, CallErrorKind, HttpClient};
use interline::resilience::CircuitState;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::server::{Reply, Server};
use crate::shop::{ITEM, till};

/// Begins at once and goes on for so long that nobody waits for it.
fn endless(seen: &crate::server::Seen) -> Reply {
    match &*seen.target {
        "/stream" => Reply::status(200)
            .body("begun")
            .pieces(&[(Duration::from_secs(60), "more")]),
        _ => Reply::json(ITEM),
    }
}

async fn begun(shop: &HttpClient) -> ByteStream {
    let mut stream = shop.get("/stream").receive_stream().await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap(), "begun");
    stream
}

#[tokio::test]
async fn a_stream_is_one_of_the_calls_that_run_until_it_ends() {
    let server = Server::start(endless).await;
    let running = till(&[server.url()], "concurrency = 2\nqueue = 0").await;
    let shop = running.manager().http_client("shop").unwrap();
    let ask = async || shop.get("/item").receive_nothing().await;
    let first = begun(&shop).await;
    ask().await.unwrap();
    let second = begun(&shop).await;
    let error = ask().await.unwrap_err();
    assert_eq!(error.kind(), CallErrorKind::BulkheadFull);
    drop(first);
    ask().await.unwrap();
    drop(second);
    let whole = async |path: &str| {
        let mut stream = shop.get(path).receive_stream().await.unwrap();
        while let Some(piece) = stream.next().await {
            piece.unwrap();
        }
        stream
    };
    // Read to its end it is over, whoever still has it.
    let ended = [
        whole("/item").await,
        whole("/item").await,
        whole("/item").await,
    ];
    ask().await.unwrap();
    drop(ended);
    assert_eq!(server.count(), 8);
}

#[tokio::test]
async fn who_is_busy_with_a_stream_is_busy() {
    let (one, two) = (Server::start(endless).await, Server::start(endless).await);
    let lines = "balance = \"least_request\"\nslow_start = \"0s\"";
    let running = till(&[one.url(), two.url()], lines).await;
    let shop = running.manager().http_client("shop").unwrap();
    let stream = begun(&shop).await;
    let (busy, idle) = match one.count() {
        1 => (&one, &two),
        _ => (&two, &one),
    };
    for _ in 0..20 {
        shop.get("/item").receive_nothing().await.unwrap();
    }
    assert_eq!((busy.count(), idle.count()), (1, 20));
    drop(stream);
    while busy.count() == 1 {
        shop.get("/item").receive_nothing().await.unwrap();
    }
}

/// Answers with the beginning of what it announces, and hangs up.
async fn breaking() -> (String, Arc<AtomicUsize>, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            let mut request = [0; 4_096];
            // One piece holds the whole request.
            let _ = stream.read(&mut request).await;
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nbegun";
            let _ = stream.write_all(answer).await;
        }
    });
    (url, count, serving)
}

#[tokio::test]
async fn a_stream_that_breaks_is_a_failure() {
    let (url, count, _serving) = breaking().await;
    let lines = "breaker.consecutive = 3\nbreaker.open = \"60s\"";
    let running = till(&[url], lines).await;
    let shop = running.manager().http_client("shop").unwrap();
    for _ in 0..3 {
        let mut stream = begun(&shop).await;
        let error = stream.next().await.unwrap().unwrap_err();
        assert_eq!(error.kind(), CallErrorKind::ConnectionLost);
        assert!(stream.next().await.is_none());
    }
    let error = shop.get("/stream").receive_stream().await.unwrap_err();
    assert_eq!(error.kind(), CallErrorKind::CircuitBreakerOpen);
    assert_eq!(count.load(Ordering::SeqCst), 3);
}

/// Begins at once, and then nothing comes for so long that nobody waits for it: bytes, or events.
fn stalled(seen: &crate::server::Seen) -> Reply {
    let silence = Duration::from_secs(60);
    match &*seen.target {
        "/stream" => Reply::status(200)
            .body("begun")
            .pieces(&[(silence, "more")]),
        _ => Reply::status(200)
            .header("content-type", "text/event-stream")
            .body("data: begun\n\n")
            .pieces(&[(silence, "more")]),
    }
}

#[tokio::test]
async fn a_stream_in_which_nothing_comes_any_more_is_a_failure() {
    let server = Server::start(stalled).await;
    let lines = "breaker.consecutive = 3\nbreaker.open = \"60s\"\nstream_idle_timeout = \"200ms\"";
    let running = till(&[server.url()], lines).await;
    let shop = running.manager().http_client("shop").unwrap();
    // It may be quiet between two events, and who goes away before the end has not waited.
    for _ in 0..4 {
        let mut events = shop.get("/events").receive_events().await.unwrap();
        assert_eq!(events.next().await.unwrap().unwrap().data, "begun");
        let error = events.next().await.unwrap().unwrap_err();
        assert_eq!(error.kind(), CallErrorKind::Timeout);
        drop(begun(&shop).await);
    }
    assert_eq!(shop.circuit().unwrap().state(), CircuitState::Closed);
    for _ in 0..3 {
        let mut stream = begun(&shop).await;
        let error = stream.next().await.unwrap().unwrap_err();
        assert_eq!(error.kind(), CallErrorKind::Timeout);
        assert!(error.to_string().contains("stream_idle_timeout"), "{error}");
        assert!(stream.next().await.is_none());
    }
    let error = shop.get("/stream").receive_stream().await.unwrap_err();
    assert_eq!(error.kind(), CallErrorKind::CircuitBreakerOpen);
    let of_endpoint = shop.endpoints()[0].circuit.clone().unwrap();
    assert_eq!(of_endpoint.state(), CircuitState::Open);
    assert_eq!(server.count(), 11);
}

#[tokio::test]
async fn an_instance_whose_streams_break_is_left_alone() {
    let (url, count, _serving) = breaking().await;
    let fine = Server::start(endless).await;
    let lines = "balance = \"round_robin\"\nbreaker.consecutive = 3\nbreaker.open = \"60s\"";
    let running = till(&[url, fine.url()], lines).await;
    let shop = running.manager().http_client("shop").unwrap();
    while count.load(Ordering::SeqCst) < 3 {
        let before = fine.count();
        let mut stream = begun(&shop).await;
        if fine.count() == before {
            stream.next().await.unwrap().unwrap_err();
        }
    }
    for _ in 0..20 {
        begun(&shop).await;
    }
    assert_eq!(count.load(Ordering::SeqCst), 3);
}
