//! Bodies and answers in other forms than JSON, and in pieces.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use interline::http::{BodyStream, ByteStream, CallErrorKind, EventStream, Sent};
use interline::prelude::*;
use interline::testing::FaultProxy;

use crate::server::{Reply, Server};
use crate::shop::{ITEM, Item, item, till};

#[derive(Serialize)]
struct Login<'a> {
    user: &'a str,
    scopes: Vec<&'a str>,
}

#[service_client(service = "shop", timeout = "5s", retry(first = "1ms"))]
trait Depot {
    #[post("/login")]
    async fn login(&self, #[body(form)] login: &Login<'_>) -> Result<(), CallError>;

    #[put("/items")]
    async fn pack(&self, #[body(msgpack)] item: &Item) -> Result<Item, CallError>;

    #[put("/raw")]
    async fn raw(
        &self,
        #[body(bytes)] bytes: &[u8],
        #[header("content-type")] content_type: &str,
    ) -> Result<(), CallError>;

    #[put("/pieces")]
    async fn pieces(&self, #[body] pieces: BodyStream) -> Result<(), CallError>;

    #[get("/stream")]
    async fn stream(&self) -> Result<ByteStream, CallError>;

    #[get("/events")]
    async fn events(&self) -> Result<EventStream, CallError>;

    #[get("/events/all")]
    #[reconnect]
    async fn all_events(&self) -> Result<EventStream, CallError>;
}

async fn depot(url: String, lines: &str) -> DepotClient {
    till(&[url], lines).await.client().unwrap()
}

#[tokio::test]
async fn a_form_is_sent_as_browsers_do() {
    let server = Server::start(|_| Reply::status(204)).await;
    let depot = depot(server.url(), "").await;
    let login = Login {
        user: "a&b =",
        scopes: vec!["read", "write"],
    };
    depot.login(&login).await.unwrap();
    let seen = &server.seen()[0];
    assert_eq!(
        seen.header("content-type"),
        "application/x-www-form-urlencoded"
    );
    assert_eq!(seen.body, "user=a%26b%20%3D&scopes=read&scopes=write");
}

#[tokio::test]
async fn message_pack_is_written_and_read() {
    let server = Server::start(|seen| match seen.number {
        0 => Reply::status(200)
            .header("content-type", "application/msgpack")
            .body(seen.body.clone()),
        _ => Reply::json(ITEM),
    })
    .await;
    let depot = depot(server.url(), "").await;
    assert_eq!(depot.pack(&item()).await.unwrap(), item());
    // An answer is read as what it says it is.
    assert_eq!(depot.pack(&item()).await.unwrap(), item());
    let seen = &server.seen()[0];
    assert_eq!(seen.header("content-type"), "application/msgpack");
    assert!(seen.header("accept").starts_with("application/msgpack"));
    assert_eq!(seen.body[..4], [0x82, 0xa2, b'i', b'd']);
}

#[tokio::test]
async fn bytes_are_sent_as_they_are_and_repeated() {
    let server = Server::start(|seen| match seen.number {
        0 => Reply::status(503),
        _ => Reply::status(204),
    })
    .await;
    let depot = depot(server.url(), "").await;
    depot.raw(&[0, 159, 255], "image/x-odd").await.unwrap();
    let seen = server.seen();
    assert_eq!(seen.len(), 2);
    for seen in seen {
        assert_eq!(seen.header("content-type"), "image/x-odd");
        assert_eq!(seen.body[..], [0, 159, 255]);
    }
}

/// Pieces, counted as they are taken.
struct Pieces {
    left: Vec<Result<Bytes, String>>,
    taken: Arc<AtomicUsize>,
}

impl futures_core::Stream for Pieces {
    type Item = Result<Bytes, String>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.taken.fetch_add(1, Ordering::SeqCst);
        Poll::Ready(self.left.pop())
    }
}

fn pieces(mut left: Vec<Result<Bytes, String>>) -> (BodyStream, Arc<AtomicUsize>) {
    left.reverse();
    let taken = Arc::new(AtomicUsize::new(0));
    let pieces = Pieces {
        left,
        taken: Arc::clone(&taken),
    };
    (BodyStream::new(pieces), taken)
}

fn two() -> Vec<Result<Bytes, String>> {
    vec![
        Ok(Bytes::from_static(b"first")),
        Ok(Bytes::from_static(b"second")),
    ]
}

#[tokio::test]
async fn a_stream_is_sent_once() {
    let server = Server::start(|_| Reply::status(503)).await;
    let depot = depot(server.url(), "").await;
    let (body, _) = pieces(two());
    let error = depot.pieces(body.length(11)).await.unwrap_err();
    assert_eq!((error.kind(), error.attempts()), (CallErrorKind::Status, 1));
    let seen = server.seen();
    assert_eq!((seen.len(), &seen[0].body[..]), (1, &b"firstsecond"[..]));
    assert_eq!(seen[0].header("content-length"), "11");
    server.change(|_| Reply::status(204));
    let (body, _) = pieces(two());
    depot.pieces(body).await.unwrap();
    assert_eq!(server.seen()[1].header("transfer-encoding"), "chunked");
}

#[tokio::test]
async fn a_stream_that_was_not_begun_goes_to_the_next_endpoint() {
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = format!("http://{}", gone.local_addr().unwrap());
    drop(gone);
    let server = Server::start(|_| Reply::status(204)).await;
    // With round robin one of two calls begins where nobody listens.
    let running = till(&[nobody, server.url()], "balance = \"round_robin\"").await;
    let depot: DepotClient = running.client().unwrap();
    for _ in 0..2 {
        let (body, taken) = pieces(two());
        depot.pieces(body).await.unwrap();
        assert_eq!(taken.load(Ordering::SeqCst), 3);
    }
    assert_eq!(server.count(), 2);
}

#[tokio::test]
async fn a_stream_that_fails_by_itself_is_no_fault_of_the_endpoint() {
    let server = Server::start(|_| Reply::status(204)).await;
    let depot = depot(server.url(), "breaker.consecutive = 1").await;
    let (body, _) = pieces(vec![
        Ok(Bytes::from_static(b"first")),
        Err("the disk is gone".to_owned()),
    ]);
    let error = depot.pieces(body).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.is_sent(), error.attempts()),
        (CallErrorKind::Request, Sent::Maybe, 1)
    );
    assert!(error.to_string().contains("the disk is gone"), "{error}");
    let (body, _) = pieces(two());
    depot.pieces(body).await.unwrap();
}

#[tokio::test]
async fn an_answer_is_read_while_it_comes() {
    let server = Server::start(|_| {
        let pieces = ["one", "two", "three"].map(|piece| (Duration::ZERO, piece));
        Reply::status(200).pieces(&pieces)
    })
    .await;
    // No limit on the whole applies.
    let depot = depot(server.url(), "response_bytes_max = \"5B\"").await;
    let mut stream = depot.stream().await.unwrap();
    let mut text = Vec::new();
    while let Some(piece) = stream.next().await {
        text.extend_from_slice(&piece.unwrap());
    }
    assert_eq!(text, b"onetwothree");
    assert!(stream.next().await.is_none());
    server.change(|_| Reply::status(404).body("no"));
    let error = depot.stream().await.unwrap_err();
    assert_eq!(
        (error.status().unwrap().as_u16(), &error.body()[..]),
        (404, &b"no"[..])
    );
}

#[tokio::test]
async fn silence_within_an_answer_has_a_limit() {
    let server = Server::start(|_| {
        let pieces = [(Duration::ZERO, "one"), (Duration::from_secs(60), "two")];
        Reply::status(200).pieces(&pieces)
    })
    .await;
    let depot = depot(server.url(), "stream_idle_timeout = \"200ms\"").await;
    let mut stream = depot.stream().await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap(), "one");
    let error = stream.next().await.unwrap().unwrap_err();
    assert_eq!(
        (error.kind(), error.is_sent()),
        (CallErrorKind::Timeout, Sent::Yes)
    );
    assert!(error.to_string().contains("within 200 ms"), "{error}");
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_an_error_and_not_an_end() {
    let server = Server::start(|_| {
        let pieces = [(Duration::ZERO, "one"), (Duration::from_secs(60), "two")];
        Reply::status(200).pieces(&pieces)
    })
    .await;
    let proxy = FaultProxy::start(&server.address()).await.unwrap();
    let depot = depot(format!("http://{}", proxy.address()), "").await;
    let mut stream = depot.stream().await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap(), "one");
    proxy.reset_all().await;
    let error = stream.next().await.unwrap().unwrap_err();
    assert_eq!(error.kind(), CallErrorKind::ConnectionLost);
}

fn events(text: &'static str) -> Reply {
    let reply = Reply::status(200).header("content-type", "text/event-stream; charset=utf-8");
    reply.body(text)
}

#[tokio::test]
async fn events_come_one_by_one_and_end_with_the_answer() {
    let server = Server::start(|seen| match seen.number {
        0 => events("id: 1\nevent: added\ndata: {\"id\": \"7\", \"left\": 3}\n\ndata: two\n\n"),
        _ => Reply::json("[]"),
    })
    .await;
    let depot = depot(server.url(), "").await;
    let mut stream = depot.events().await.unwrap();
    let event = stream.next().await.unwrap().unwrap();
    assert_eq!((&*event.event, &*event.id), ("added", "1"));
    assert_eq!(event.json::<Item>().unwrap(), item());
    let event = stream.next().await.unwrap().unwrap();
    assert_eq!(
        (&*event.event, &*event.data, &*event.id),
        ("message", "two", "1")
    );
    assert!(stream.next().await.is_none());
    assert_eq!(server.seen()[0].header("accept"), "text/event-stream");
    let error = depot.events().await.unwrap_err();
    assert_eq!(error.kind(), CallErrorKind::Decode);
    assert!(
        error.to_string().contains("not with `text/event-stream`"),
        "{error}"
    );
    assert_eq!(server.count(), 2);
}

#[tokio::test]
async fn a_stream_of_events_goes_on_where_it_broke() {
    let server = Server::start(|seen| match seen.number {
        0 => events("retry: 1\nid: 4\ndata: four\n\ndata: cut"),
        1 => Reply::status(503),
        2 => events("id: 5\ndata: five\n\n"),
        _ => Reply::status(204),
    })
    .await;
    let depot = depot(server.url(), "retry.attempts = 1").await;
    let mut stream = depot.all_events().await.unwrap();
    let mut data = Vec::new();
    while let Some(event) = stream.next().await {
        data.push(event.unwrap().data);
    }
    assert_eq!(data, ["four", "five"]);
    let ids: Vec<String> = server
        .seen()
        .iter()
        .map(|seen| seen.header("last-event-id").to_owned())
        .collect();
    assert_eq!(ids, ["", "4", "4", "5"]);
}

#[tokio::test]
async fn a_stream_of_events_that_is_refused_is_not_asked_for_again() {
    let server = Server::start(|seen| match seen.number {
        0 => events("retry: 1\ndata: one\n\n"),
        _ => Reply::status(401),
    })
    .await;
    let depot = depot(server.url(), "").await;
    let mut stream = depot.all_events().await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap().data, "one");
    let error = stream.next().await.unwrap().unwrap_err();
    assert_eq!(error.status().unwrap().as_u16(), 401);
    assert!(stream.next().await.is_none());
    assert_eq!(server.count(), 2);
}
