//! What is repeated, how often, and where.

use std::sync::Arc;
use std::time::{Duration, Instant};

use interline::http::{CallErrorKind, Sent};
use interline::prelude::*;
use interline::testing::FaultProxy;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::server::{Reply, Server};
use crate::shop::{ITEM, Shop, client, item};

const NO_BREAKER: &str = "breaker.enabled = false";

#[tokio::test]
async fn a_read_is_repeated_until_it_works() {
    let server = Server::start(|seen| match seen.number {
        0 => Reply::status(503),
        1 => Reply::status(429),
        _ => Reply::json(ITEM),
    })
    .await;
    let shop = client(&[server.url()], "").await;
    assert_eq!(shop.item("7").await.unwrap(), item());
    let seen = server.seen();
    let attempts: Vec<_> = seen.iter().map(|seen| seen.header("x-attempt")).collect();
    assert_eq!(attempts, ["1", "2", "3"]);
}

#[tokio::test]
async fn what_fails_every_time_is_given_up() {
    let server = Server::start(|_| Reply::status(502)).await;
    let shop = client(&[server.url()], NO_BREAKER).await;
    let error = shop.item("7").await.unwrap_err();
    assert_eq!(error.kind(), CallErrorKind::RetryExhausted);
    assert_eq!((error.attempts(), server.count()), (3, 3));
    assert_eq!(error.status().unwrap().as_u16(), 502);
    assert_eq!(error.is_sent(), Sent::Yes);
    assert!(error.is_retryable());
    assert!(
        error.to_string().contains("answered 502 Bad Gateway"),
        "{error}"
    );
    assert!(error.to_string().contains("3 attempts"), "{error}");
}

#[tokio::test]
async fn errors_that_stay_are_not_repeated() {
    for status in [400, 401, 404, 409, 422, 500, 501, 302] {
        let server = Server::start(move |_| Reply::status(status)).await;
        let shop = client(&[server.url()], "").await;
        let error = shop.item("7").await.unwrap_err();
        assert_eq!(error.kind(), CallErrorKind::Status, "{status}");
        assert_eq!(server.count(), 1, "{status}");
    }
}

#[tokio::test]
async fn a_write_is_repeated_only_with_a_key_which_stays_the_same() {
    // Every first attempt fails.
    let server = Server::start(|seen| match seen.header("x-attempt") {
        "1" => Reply::status(503),
        _ => Reply::status(201),
    })
    .await;
    let shop = client(&[server.url()], "").await;
    let error = shop.add(&item()).await.unwrap_err();
    assert_eq!((error.kind(), server.count()), (CallErrorKind::Status, 1));
    let error = shop.change("7", 1).await.unwrap_err();
    assert_eq!((error.kind(), server.count()), (CallErrorKind::Status, 2));
    shop.add_once(&item()).await.unwrap();
    shop.add_once(&item()).await.unwrap();
    let seen = server.seen();
    let keys: Vec<_> = seen[2..]
        .iter()
        .map(|seen| seen.header("idempotency-key"))
        .collect();
    assert_eq!((keys.len(), keys[0].len()), (4, 36));
    assert_eq!((keys[0], keys[2]), (keys[1], keys[3]));
    assert_ne!(keys[0], keys[2]);
}

#[tokio::test]
async fn a_body_is_the_same_on_every_attempt() {
    let server = Server::start(|seen| match seen.number {
        0 | 1 => Reply::status(503),
        _ => Reply::status(204),
    })
    .await;
    let shop = client(&[server.url()], "").await;
    shop.set("7", item()).await.unwrap();
    let bodies: Vec<_> = server.seen().into_iter().map(|seen| seen.body).collect();
    assert_eq!(bodies.len(), 3);
    assert!(bodies.iter().all(|body| body == r#"{"id":"7","left":3}"#));
}

#[tokio::test]
async fn waits_are_drawn_as_the_configuration_says() {
    let server = Server::start(|_| Reply::status(503)).await;
    let lines = format!("{NO_BREAKER}\nretry.first = \"100ms\"\nretry.jitter = ");
    let took = async |jitter: &str| {
        let shop = client(&[server.url()], &format!("{lines}\"{jitter}\"")).await;
        let begun = Instant::now();
        shop.item("7").await.unwrap_err();
        begun.elapsed()
    };
    // 100 ms and 200 ms, from half on, or from the first on, or from nothing on.
    let ms = Duration::from_millis;
    assert!(took("none").await >= ms(300));
    assert!(took("equal").await >= ms(150));
    assert!(took("decorrelated").await >= ms(200));
    let mut least = Duration::MAX;
    while least >= ms(150) {
        least = least.min(took("full").await);
    }
}

#[tokio::test]
async fn a_server_that_asks_for_time_gets_it() {
    let server = Server::start(|seen| match seen.number {
        0 => Reply::status(503).header("retry-after", "1"),
        _ => Reply::json(ITEM),
    })
    .await;
    let shop = client(&[server.url()], "").await;
    let begun = Instant::now();
    shop.item("7").await.unwrap();
    assert!(
        begun.elapsed() >= Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn no_one_waits_for_an_attempt_that_there_is_no_time_for() {
    let server = Server::start(|_| Reply::status(503).header("retry-after", "6")).await;
    let shop = client(&[server.url()], "").await;
    let begun = Instant::now();
    let hurried = shop.with(CallOptions::new().timeout(Duration::from_secs(5)));
    let error = hurried.item("7").await.unwrap_err();
    assert!(
        begun.elapsed() < Duration::from_secs(4),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(error.retry_after(), Some(Duration::from_secs(6)));
    assert_eq!((error.kind(), error.attempts()), (CallErrorKind::Status, 1));
    assert!(
        error.to_string().contains("no time for another attempt"),
        "{error}"
    );
}

#[tokio::test]
async fn a_failing_service_sees_at_most_a_fifth_more_calls() {
    let server = Server::start(|_| Reply::status(503)).await;
    let lines = format!("{NO_BREAKER}\nretry.first = \"1ms\"");
    let shop = Arc::new(client(&[server.url()], &lines).await);
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let shop = Arc::clone(&shop);
        calls.spawn(async move {
            for _ in 0..100 {
                shop.item("7").await.unwrap_err();
            }
        });
    }
    calls.join_all().await;
    let count = server.count();
    assert!((1_100..=1_200).contains(&count), "{count}");
}

#[tokio::test]
async fn an_endpoint_where_nobody_listens_fails_no_call() {
    let server = Server::start(|_| Reply::status(204)).await;
    let proxy = FaultProxy::start(server.address()).await.unwrap();
    proxy.refuse(true).await.unwrap();
    let urls = [server.url(), format!("http://{}", proxy.address())];
    let shop = client(&urls, "balance = \"round_robin\"").await;
    for _ in 0..500 {
        // A write, too: what was not sent may be sent elsewhere.
        shop.add(&item()).await.unwrap();
    }
    assert_eq!(server.count(), 500);
    let alone = client(&urls[1..], "").await;
    let error = alone.add(&item()).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.is_sent()),
        (CallErrorKind::RetryExhausted, Sent::No)
    );
    assert!(error.to_string().contains("no connection"), "{error}");
}

#[tokio::test]
async fn a_lost_connection_is_repeated_only_where_that_is_safe() {
    let slow = |_: &_| Reply::json(ITEM).after(Duration::from_millis(300));
    let server = Server::start(slow).await;
    let proxy = FaultProxy::start(server.address()).await.unwrap();
    let shop = client(&[format!("http://{}", proxy.address())], "").await;
    let cut = |wanted| {
        let (server, proxy) = (&server, &proxy);
        async move {
            while server.count() < wanted {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            proxy.reset_all().await;
        }
    };
    let order = item();
    let (added, ()) = tokio::join!(shop.add(&order), cut(1));
    let error = added.unwrap_err();
    assert_eq!(
        (error.kind(), error.is_sent()),
        (CallErrorKind::ConnectionLost, Sent::Maybe)
    );
    assert_eq!(server.count(), 1);
    let (found, ()) = tokio::join!(shop.item("7"), cut(2));
    assert_eq!(found.unwrap(), order);
    assert_eq!(server.count(), 3);
}

#[tokio::test]
async fn a_server_that_closes_idle_connections_is_no_error() {
    // Answers and closes, without saying so before: the client finds out when it sends again.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut buffer = [0; 4_096];
                let read = stream.read(&mut buffer).await.unwrap_or_default();
                if read > 0 {
                    let answer = format!(
                        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{ITEM}",
                        ITEM.len()
                    );
                    let _ = stream.write_all(answer.as_bytes()).await;
                }
            });
        }
    });
    let shop = client(&[url], NO_BREAKER).await;
    for call in 0..300 {
        let found = shop.item("7").await;
        assert!(found.is_ok(), "call {call}: {}", found.unwrap_err());
    }
    serving.abort();
}

/// Answers one request after another, and hangs up when the next one has not come after `idle`.
async fn impatient(idle: Duration) -> (String, tokio::task::JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mut serving = tokio::task::JoinSet::new();
    serving.spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            connections.spawn(async move {
                let mut request = [0; 4_096];
                // One piece holds a whole request.
                while let Ok(Ok(1..)) = tokio::time::timeout(idle, stream.read(&mut request)).await
                {
                    let length = ITEM.len();
                    let head = format!(
                        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\
                         content-length: {length}\r\n\r\n"
                    );
                    if stream.write_all((head + ITEM).as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (url, serving)
}

#[tokio::test]
async fn a_server_that_hangs_up_just_when_a_call_comes_fails_no_read() {
    let idle = Duration::from_millis(20);
    let (url, _serving) = impatient(idle).await;
    // All of them may meet it, where the machine is busy.
    let lines = format!("{NO_BREAKER}\nretry.floor = 10000\nretry.attempts = 20");
    let shop = client(&[url], &lines).await;
    let mut calls = tokio::task::JoinSet::new();
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    for task in 0..10 {
        let shop = shop.clone();
        let mut rng = fastrand::Rng::with_seed(seed.wrapping_add(task));
        calls.spawn(async move {
            for _ in 0..50 {
                shop.item("7").await.unwrap();
                // About when the server loses its patience.
                let wait = Duration::from_micros(rng.u64(19_000..21_500));
                tokio::time::sleep(wait).await;
            }
        });
    }
    while let Some(done) = calls.join_next().await {
        done.unwrap();
    }
}
