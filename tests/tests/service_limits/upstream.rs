//! A service that answers everything with success, and counts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// The service; it ends when it is dropped.
pub struct Upstream {
    address: SocketAddr,
    count: Arc<AtomicUsize>,
    _accepting: JoinSet<()>,
}

impl Upstream {
    pub async fn start() -> std::io::Result<Self> {
        Self::start_slow(Duration::ZERO).await
    }

    /// One that takes this long to answer.
    pub async fn start_slow(time: Duration) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let count = Arc::new(AtomicUsize::new(0));
        let mut accepting = JoinSet::new();
        let counted = Arc::clone(&count);
        accepting.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(answer(stream, Arc::clone(&counted), time));
            }
        });
        Ok(Self {
            address,
            count,
            _accepting: accepting,
        })
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }
}

/// Requests here have no body, so each ends with an empty line.
async fn answer(mut stream: TcpStream, count: Arc<AtomicUsize>, time: Duration) {
    let mut read = Vec::new();
    let mut buffer = [0; 4_096];
    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
        read.extend_from_slice(&buffer[..length]);
        if read.ends_with(b"\r\n\r\n") {
            read.clear();
            count.fetch_add(1, Ordering::SeqCst);
            if !time.is_zero() {
                sleep(time).await;
            }
            if stream.write_all(ANSWER).await.is_err() {
                return;
            }
        }
    }
}
