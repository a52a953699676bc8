use std::future::Future;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

use super::*;

const LIMIT: Duration = Duration::from_secs(10);

/// A server that sends everything back.
async fn echo_server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    address
}

async fn proxy() -> FaultProxy {
    FaultProxy::start_seeded(echo_server().await, 7)
        .await
        .unwrap()
}

async fn connect(proxy: &FaultProxy) -> TcpStream {
    TcpStream::connect(proxy.address()).await.unwrap()
}

async fn exchange(stream: &mut TcpStream, text: &[u8]) {
    stream.write_all(text).await.unwrap();
    assert_eq!(receive(stream, text.len()).await, text);
}

async fn receive(stream: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut text = vec![0; length];
    within(stream.read_exact(&mut text)).await.unwrap();
    text
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    timeout(LIMIT, work)
        .await
        .expect("the proxy answers within the limit")
}

async fn end_of(stream: &mut TcpStream) -> io::ErrorKind {
    let mut rest = Vec::new();
    within(stream.read_to_end(&mut rest))
        .await
        .unwrap_err()
        .kind()
}

async fn nothing_comes(stream: &mut TcpStream) {
    let got = timeout(Duration::from_millis(30), stream.read_u8()).await;
    assert!(got.is_err(), "{got:?}");
}

async fn until(what: &str, done: impl Fn() -> bool) {
    let end = Instant::now() + LIMIT;
    while !done() {
        assert!(Instant::now() < end, "still waiting until {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Twenty times, each on a runtime of its own: what depends on the order of events shows.
fn repeatedly<F: Future<Output = ()>>(test: impl Fn() -> F) {
    for _ in 0..20 {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap()
            .block_on(test());
    }
}

#[test]
fn bytes_pass_both_ways_and_are_counted() {
    repeatedly(|| async {
        let proxy = proxy().await;
        let mut stream = connect(&proxy).await;
        exchange(&mut stream, b"hello").await;
        assert_eq!(proxy.connections(), 1);
        until("all is counted", || proxy.total_bytes() == 10).await;
        assert_eq!(proxy.bytes(Direction::ToServer), 5);

        stream.shutdown().await.unwrap();
        let mut rest = Vec::new();
        within(stream.read_to_end(&mut rest)).await.unwrap();
        assert_eq!(rest, b"");
        until("the link is gone", || proxy.connections() == 0).await;
    });
}

#[test]
fn more_than_the_buffers_hold_passes_whole() {
    repeatedly(|| async {
        let proxy = proxy().await;
        let mut stream = connect(&proxy).await;
        let sent: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
        let expected = sent.clone();
        let (mut read, mut write) = stream.split();
        let mut received = vec![0; expected.len()];
        let (written, read) =
            within(async { tokio::join!(write.write_all(&sent), read.read_exact(&mut received)) })
                .await;
        written.unwrap();
        read.unwrap();
        assert!(received == expected, "what came back differs");
    });
}

#[test]
fn latency_delays_both_ways_and_keeps_the_order() {
    repeatedly(|| async {
        let proxy = proxy().await;
        let mut stream = connect(&proxy).await;
        exchange(&mut stream, b"warm").await;
        proxy.latency(Duration::from_millis(4), Duration::from_millis(9));
        let start = Instant::now();
        for digit in b'0'..=b'9' {
            stream.write_all(&[digit]).await.unwrap();
        }
        assert_eq!(receive(&mut stream, 10).await, b"0123456789");
        let taken = start.elapsed();
        assert!(taken >= Duration::from_millis(8), "{taken:?}");
        proxy.restore().await.unwrap();
        exchange(&mut stream, b"again").await;
    });
}

#[test]
fn the_same_seed_draws_the_same_delays() {
    let draws = |seed| {
        let mut chance = link::chance(seed, 3, Direction::ToClient);
        (0..8).map(|_| chance.u64(0..1000)).collect::<Vec<_>>()
    };
    assert_eq!(draws(1), draws(1));
    assert_ne!(draws(1), draws(2));
}

#[test]
fn a_reset_ends_every_connection_and_none_that_comes_later() {
    repeatedly(|| async {
        let proxy = proxy().await;
        let mut streams = [connect(&proxy).await, connect(&proxy).await];
        for stream in &mut streams {
            exchange(stream, b"hello").await;
        }

        assert_eq!(proxy.reset_all().await, 2);

        assert_eq!(proxy.connections(), 0);
        for stream in &mut streams {
            assert_eq!(end_of(stream).await, io::ErrorKind::ConnectionReset);
        }
        exchange(&mut connect(&proxy).await, b"later").await;
    });
}

#[test]
fn a_black_hole_takes_connections_and_gives_everything_back_afterwards() {
    repeatedly(|| async {
        let proxy = proxy().await;
        let mut early = connect(&proxy).await;
        exchange(&mut early, b"hello").await;

        proxy.black_hole(true);
        let mut late = connect(&proxy).await;
        early.write_all(b"early").await.unwrap();
        late.write_all(b"late").await.unwrap();
        nothing_comes(&mut early).await;
        nothing_comes(&mut late).await;
        proxy.black_hole(false);

        assert_eq!(receive(&mut early, 5).await, b"early");
        assert_eq!(receive(&mut late, 4).await, b"late");
    });
}

#[test]
fn a_connection_in_a_black_hole_can_be_reset() {
    repeatedly(|| async {
        let proxy = proxy().await;
        proxy.black_hole(true);
        let mut stream = connect(&proxy).await;
        until("the link is there", || proxy.connections() == 1).await;
        assert_eq!(proxy.reset_all().await, 1);
        assert_eq!(end_of(&mut stream).await, io::ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_stall_holds_one_direction_only() {
    repeatedly(|| async {
        let proxy = proxy().await;
        let mut stream = connect(&proxy).await;
        exchange(&mut stream, b"hello").await;
        until("all is counted", || proxy.total_bytes() == 10).await;

        proxy.stall(Direction::ToClient, true);
        stream.write_all(b"held").await.unwrap();
        until("the server has it", || {
            proxy.bytes(Direction::ToServer) == 9
        })
        .await;
        nothing_comes(&mut stream).await;
        assert_eq!(proxy.bytes(Direction::ToClient), 5);
        proxy.stall(Direction::ToClient, false);

        assert_eq!(receive(&mut stream, 4).await, b"held");
    });
}

#[test]
fn a_cut_comes_after_exactly_so_many_bytes_and_once() {
    repeatedly(|| async {
        let proxy = proxy().await;
        let mut stream = connect(&proxy).await;
        exchange(&mut stream, b"hello").await;
        until("all is counted", || proxy.total_bytes() == 10).await;

        proxy.cut_after(13);
        stream.write_all(b"0123456789").await.unwrap();

        assert_eq!(receive(&mut stream, 3).await, b"012");
        assert_eq!(end_of(&mut stream).await, io::ErrorKind::ConnectionReset);
        assert_eq!(proxy.total_bytes(), 23);
        exchange(&mut connect(&proxy).await, b"more than thirteen bytes").await;
    });
}

#[test]
fn refusing_leaves_open_connections_alone_and_keeps_the_port() {
    repeatedly(|| async {
        let proxy = proxy().await;
        let mut open = connect(&proxy).await;
        exchange(&mut open, b"hello").await;

        proxy.refuse(true).await.unwrap();
        proxy.refuse(true).await.unwrap();
        let refused = TcpStream::connect(proxy.address()).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        exchange(&mut open, b"still").await;

        proxy.restore().await.unwrap();
        exchange(&mut connect(&proxy).await, b"back").await;
    });
}

#[test]
fn a_server_that_refuses_shows_as_a_reset() {
    repeatedly(|| async {
        let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = nobody.local_addr().unwrap().to_string();
        drop(nobody);
        let proxy = FaultProxy::start_seeded(target, 7).await.unwrap();
        // The reset may come before the client has looked at its connection.
        let kind = match TcpStream::connect(proxy.address()).await {
            Ok(mut stream) => end_of(&mut stream).await,
            Err(error) => error.kind(),
        };
        assert_eq!(kind, io::ErrorKind::ConnectionReset);
    });
}

#[test]
fn dropping_the_proxy_ends_its_tasks() {
    repeatedly(|| async {
        let proxy = proxy().await;
        let address = proxy.address();
        let mut stream = connect(&proxy).await;
        exchange(&mut stream, b"hello").await;
        let shared = Arc::downgrade(&proxy.shared);

        drop(proxy);

        let mut rest = Vec::new();
        let _ = within(stream.read_to_end(&mut rest)).await;
        until("no task is left", || shared.strong_count() == 0).await;
        let end = Instant::now() + LIMIT;
        let refused = loop {
            match TcpStream::connect(address).await {
                Ok(_) => assert!(Instant::now() < end, "the port is still open"),
                Err(error) => break error,
            }
        };
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    });
}
