//! Calls over one connection of HTTP/2, and what a server can do to it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use interline::CallOptions;
use interline::http::{CallErrorKind, Sent};
use interline::testing::FaultProxy;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::server::{Reply, Server, Way};
use crate::shop::{ITEM, Shop, ShopClient, client, item};

const HTTP2: &str = "protocol = \"http2\"";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GO_AWAY: u8 = 7;

/// What is done about a request when all of it has come.
#[derive(Clone, Copy, Debug)]
enum Act {
    /// 204.
    Answer,
    /// GOAWAY: all is fine, and nothing from this request on was done. Then the end of the connection.
    Leave,
    /// GOAWAY for an error of the client's.
    Accuse,
    /// RST_STREAM with this code.
    Reset(u32),
    /// Nothing, for now: it is answered when as many wait as may.
    Hold,
}

/// A server that speaks HTTP/2 frame by frame, so that it can do what no library lets a server do.
struct Frames {
    url: String,
    state: Arc<State>,
    _accepting: JoinSet<()>,
}

struct State {
    /// By the number of the request, from 0.
    script: Box<dyn Fn(usize) -> Act + Send + Sync>,
    requests: AtomicUsize,
    connections: AtomicUsize,
    /// As many streams may be open at once on a connection.
    streams_max: u32,
    /// The most that were.
    streams: Mutex<usize>,
}

impl Frames {
    async fn start(script: impl Fn(usize) -> Act + Send + Sync + 'static) -> Self {
        Self::start_with(script, 100).await
    }

    async fn start_with(
        script: impl Fn(usize) -> Act + Send + Sync + 'static,
        streams_max: u32,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(State {
            script: Box::new(script),
            requests: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            streams_max,
            streams: Mutex::new(0),
        });
        let mut accepting = JoinSet::new();
        let of_all = Arc::clone(&state);
        accepting.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                of_all.connections.fetch_add(1, Ordering::SeqCst);
                // That a client hangs up is a part of the tests.
                let state = Arc::clone(&of_all);
                connections.spawn(async move { state.serve(stream).await.is_ok() });
            }
        });
        Self {
            url,
            state,
            _accepting: accepting,
        }
    }

    fn requests(&self) -> usize {
        self.state.requests.load(Ordering::SeqCst)
    }

    fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// 204, by its place in the table that both sides know.
fn answer(stream: u32) -> Vec<u8> {
    frame(HEADERS, 0x5, stream, &[0x89])
}

impl State {
    async fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut preface = [0; 24];
        stream.read_exact(&mut preface).await?;
        let mut settings = vec![0, 3];
        settings.extend(self.streams_max.to_be_bytes());
        stream.write_all(&frame(SETTINGS, 0, 0, &settings)).await?;
        // Which streams are open, and whether all of their request has come.
        let mut open: BTreeMap<u32, bool> = BTreeMap::new();
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head).await?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length as usize];
            stream.read_exact(&mut payload).await?;
            let (kind, flags) = (head[3], head[4]);
            let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            match kind {
                SETTINGS if flags & 1 == 0 => {
                    stream.write_all(&frame(SETTINGS, 1, 0, &[])).await?;
                }
                PING if flags & 1 == 0 => stream.write_all(&frame(PING, 1, 0, &payload)).await?,
                HEADERS | DATA => {
                    open.entry(id).or_default();
                    {
                        let mut most = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
                        *most = open.len().max(*most);
                    }
                    if flags & 1 == 1 {
                        open.insert(id, true);
                        let number = self.requests.fetch_add(1, Ordering::SeqCst);
                        if !self
                            .act((self.script)(number), id, &mut open, &mut stream)
                            .await?
                        {
                            return Ok(());
                        }
                    }
                }
                RESET => {
                    open.remove(&id);
                }
                _ => {}
            }
        }
    }

    /// Whether the connection goes on.
    async fn act(
        &self,
        act: Act,
        id: u32,
        open: &mut BTreeMap<u32, bool>,
        stream: &mut TcpStream,
    ) -> std::io::Result<bool> {
        let go_away = |code: u32| {
            let before = id.saturating_sub(2);
            let payload = [before.to_be_bytes(), code.to_be_bytes()].concat();
            frame(GO_AWAY, 0, 0, &payload)
        };
        match act {
            Act::Answer => {
                open.remove(&id);
                stream.write_all(&answer(id)).await?;
            }
            Act::Leave => {
                stream.write_all(&go_away(0)).await?;
                return Ok(false);
            }
            Act::Accuse => {
                stream.write_all(&go_away(1)).await?;
                return Ok(false);
            }
            Act::Reset(code) => {
                open.remove(&id);
                let reset = frame(RESET, 0, id, &code.to_be_bytes());
                stream.write_all(&reset).await?;
            }
            Act::Hold => {
                let held = open.values().filter(|whole| **whole).count();
                if held as u64 == u64::from(self.streams_max) {
                    for id in std::mem::take(open).into_keys() {
                        stream.write_all(&answer(id)).await?;
                    }
                }
            }
        }
        Ok(true)
    }
}

#[tokio::test]
async fn instances_are_called_by_one_name_also_in_the_clear() {
    for (way, protocol) in [(Way::Http1, "auto"), (Way::Http2, "http2")] {
        let [one, two] = Server::start_two(|_| Reply::json(ITEM), way).await;
        let lines = format!(
            "host = \"shop.test\"\nprotocol = \"{protocol}\"\nbalance = \"round_robin\"\n\
             [services.shop.health]\nevery = \"10ms\"\npath = \"/how\""
        );
        let shop = client(&[one.url(), two.url()], &lines).await;
        for _ in 0..10 {
            assert_eq!(shop.item("7").await.unwrap(), item());
        }
        let name = format!("shop.test:{}", one.port());
        for server in [&one, &two] {
            // Those that ask how they are do it by the name, too.
            let begun = Instant::now();
            while !server
                .seen()
                .iter()
                .any(|seen| seen.target.ends_with("/how"))
            {
                assert!(begun.elapsed() < Duration::from_secs(30), "nobody asks");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let seen = server.seen();
            let calls = seen.iter().filter(|seen| !seen.target.ends_with("/how"));
            assert_eq!(calls.count(), 5, "{protocol}");
            for seen in seen {
                assert_eq!(seen.names(), [&*name], "{protocol}");
            }
        }
    }
}

#[tokio::test]
async fn what_a_server_gives_back_is_sent_again_whatever_it_is() {
    const REFUSED_STREAM: u32 = 7;
    for act in [Act::Leave, Act::Reset(REFUSED_STREAM)] {
        let server = Frames::start(move |number| match number {
            1 => act,
            _ => Act::Answer,
        })
        .await;
        let shop: ShopClient = client(std::slice::from_ref(&server.url), HTTP2).await;
        // A POST without a key.
        shop.add(&item()).await.unwrap();
        shop.add(&item()).await.unwrap();
        assert_eq!(server.requests(), 3, "{act:?}");
    }
}

#[tokio::test]
async fn what_a_server_may_have_begun_is_not_sent_again() {
    const INTERNAL_ERROR: u32 = 2;
    const CANCEL: u32 = 8;
    for act in [Act::Accuse, Act::Reset(INTERNAL_ERROR), Act::Reset(CANCEL)] {
        let server = Frames::start(move |_| act).await;
        let shop: ShopClient = client(std::slice::from_ref(&server.url), HTTP2).await;
        let error = shop.add(&item()).await.unwrap_err();
        assert_eq!(error.kind(), CallErrorKind::ConnectionLost, "{act:?}");
        assert_eq!(
            (error.is_sent(), error.attempts(), server.requests()),
            (Sent::Maybe, 1, 1),
            "{act:?}"
        );
    }
}

#[tokio::test]
async fn what_is_given_back_every_time_was_not_sent() {
    let server = Frames::start(|_| Act::Leave).await;
    let shop: ShopClient = client(std::slice::from_ref(&server.url), HTTP2).await;
    let error = shop.add(&item()).await.unwrap_err();
    assert_eq!(error.kind(), CallErrorKind::RetryExhausted);
    assert_eq!((error.is_sent(), error.attempts()), (Sent::No, 3));
    assert_eq!((server.requests(), server.connections()), (3, 3));
    assert!(error.to_string().contains("was given back"), "{error}");
}

#[tokio::test]
async fn as_many_requests_are_open_as_the_server_allows_and_the_others_wait() {
    let server = Frames::start_with(|_| Act::Hold, 4).await;
    let lines = format!("{HTTP2}\nretry.attempts = 1");
    let shop: ShopClient = client(std::slice::from_ref(&server.url), &lines).await;
    // Its settings are known when the first ones are answered.
    let mut first = JoinSet::new();
    for _ in 0..4 {
        let shop = shop.clone();
        first.spawn(async move { shop.add(&item()).await });
    }
    for result in first.join_all().await {
        result.unwrap();
    }
    *server.state.streams.lock().unwrap() = 0;
    let mut calls = JoinSet::new();
    for _ in 0..40 {
        let shop = shop.clone();
        calls.spawn(async move { shop.add(&item()).await });
    }
    for result in calls.join_all().await {
        result.unwrap();
    }
    assert_eq!((server.requests(), server.connections()), (44, 1));
    assert_eq!(*server.state.streams.lock().unwrap(), 4);
}

#[tokio::test]
async fn a_connection_that_is_reset_takes_no_call_that_may_be_repeated_with_it() {
    let hanging = |seen: &crate::server::Seen| match seen.header("x-attempt") {
        "1" => Reply::json(ITEM).after(Duration::from_secs(60)),
        _ => Reply::json(ITEM),
    };
    let server = Server::start_with(hanging, Way::Http2).await;
    let proxy = FaultProxy::start(server.address()).await.expect("a proxy");
    let url = format!("http://{}", proxy.address());
    let shop: ShopClient = client(&[url], HTTP2).await;
    let (mut reads, mut writes) = (JoinSet::new(), JoinSet::new());
    for _ in 0..20 {
        let shop = shop.clone();
        reads.spawn(async move { shop.item("7").await });
    }
    for _ in 0..5 {
        let shop = shop.clone();
        writes.spawn(async move { shop.add(&item()).await });
    }
    let begun = Instant::now();
    while server.count() < 25 {
        assert!(begun.elapsed() < Duration::from_secs(30));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(proxy.reset_all().await, 1, "all are on one connection");
    for result in reads.join_all().await {
        assert_eq!(result.unwrap(), item());
    }
    for result in writes.join_all().await {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), CallErrorKind::ConnectionLost);
        assert_eq!((error.is_sent(), error.attempts()), (Sent::Maybe, 1));
    }
    assert_eq!(server.count(), 45);
}

#[tokio::test]
async fn a_connection_on_which_nothing_comes_any_more_is_given_up_soon() {
    let server = Server::start_with(|_| Reply::json(ITEM), Way::Http2).await;
    let proxy = FaultProxy::start(server.address()).await.expect("a proxy");
    let url = format!("http://{}", proxy.address());
    let lines = format!("{HTTP2}\nretry.attempts = 1\ntimeout = \"60s\"");
    let running = crate::shop::till(&[url], &lines).await;
    // Without a trait, so without its limit.
    let shop = running.manager().http_client("shop").unwrap();
    let ask = || shop.get("/api/items/7").receive_bytes();
    ask().await.unwrap();
    proxy.black_hole(true);
    let begun = Instant::now();
    let error = ask().await.unwrap_err();
    let took = begun.elapsed();
    assert_eq!(error.kind(), CallErrorKind::ConnectionLost, "{error}");
    assert!(took < Duration::from_secs(15), "{took:?}");
    // The next call makes a connection of its own.
    proxy.black_hole(false);
    let hurried = shop.with(CallOptions::new().timeout(Duration::from_secs(5)));
    hurried.get("/api/items/7").receive_bytes().await.unwrap();
}
