//! An HTTP server that notes what it is asked and answers by a script.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep};
use tokio_rustls::TlsAcceptor;

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Which request it was, from 0.
    pub(crate) number: usize,
    /// On which connection it came, from 0, and when.
    pub(crate) connection: usize,
    pub(crate) at: Instant,
    pub(crate) method: Method,
    pub(crate) version: Version,
    /// Path and query.
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Seen {
    /// Whom it is for, in each place that says it: `:authority`, and `host`.
    pub(crate) fn names(&self) -> Vec<String> {
        let target: hyper::Uri = self.target.parse().expect("an address");
        let authority = target.authority().map(ToString::to_string);
        let host = self.headers.get("host");
        let host = host.map(|host| host.to_str().expect("a text").to_owned());
        authority.into_iter().chain(host).collect()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.map_or("", |value| value.to_str().expect("a text"))
    }
}

/// What is answered.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
    /// After the body, each after its wait.
    pieces: VecDeque<(Duration, Bytes)>,
    after: Duration,
}

impl Reply {
    pub(crate) fn status(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Bytes::new(),
            pieces: VecDeque::new(),
            after: Duration::ZERO,
        }
    }

    /// With a body in pieces, each after its wait.
    pub(crate) fn pieces(mut self, pieces: &[(Duration, &'static str)]) -> Self {
        let pieces = pieces.iter();
        self.pieces = pieces
            .map(|(wait, text)| (*wait, Bytes::from_static(text.as_bytes())))
            .collect();
        self
    }

    pub(crate) fn json(body: &str) -> Self {
        let ok = Self::status(200).header("content-type", "application/json");
        ok.body(body.to_owned())
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    pub(crate) fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    pub(crate) fn after(mut self, wait: Duration) -> Self {
        self.after = wait;
        self
    }
}

/// How the server is spoken to.
#[derive(Clone)]
pub(crate) enum Way {
    Http1,
    /// In the clear.
    Http2,
    /// Either of the two, as they agree.
    Tls(TlsAcceptor),
}

type Script = dyn Fn(&Seen) -> Reply + Send + Sync;

/// The server; it ends when it is dropped.
pub(crate) struct Server {
    address: SocketAddr,
    scheme: &'static str,
    state: Arc<State>,
    _accepting: JoinSet<()>,
}

struct State {
    script: Mutex<Arc<Script>>,
    seen: Mutex<Vec<Seen>>,
    count: AtomicUsize,
    connections: AtomicUsize,
}

impl Server {
    pub(crate) async fn start(script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_with(script, Way::Http1).await
    }

    pub(crate) async fn start_with(
        script: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
        way: Way,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        Self::on(listener, script, way)
    }

    /// Two instances of one port, which a name with that port does not tell apart.
    pub(crate) async fn start_two(
        script: impl Fn(&Seen) -> Reply + Clone + Send + Sync + 'static,
        way: Way,
    ) -> [Self; 2] {
        loop {
            let one = Self::start_with(script.clone(), way.clone()).await;
            let beside = format!("127.0.0.2:{}", one.port());
            if let Ok(listener) = TcpListener::bind(beside).await {
                return [one, Self::on(listener, script, way)];
            }
        }
    }

    /// Also at every other address of the loopback.
    pub(crate) async fn start_everywhere(
        script: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("0.0.0.0:0").await.expect("a free port");
        Self::on(listener, script, Way::Http1)
    }

    fn on(
        listener: TcpListener,
        script: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
        way: Way,
    ) -> Self {
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(State {
            script: Mutex::new(Arc::new(script)),
            seen: Mutex::default(),
            count: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
        });
        let mut accepting = JoinSet::new();
        let scheme = match way {
            Way::Tls(_) => "https",
            Way::Http1 | Way::Http2 => "http",
        };
        accepting.spawn(accept(listener, Arc::clone(&state), way));
        Self {
            address,
            scheme,
            state,
            _accepting: accepting,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        lock(&self.state.seen).clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.state.count.load(Ordering::SeqCst)
    }

    /// How many connections were made to it.
    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    pub(crate) fn change(&self, script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) {
        *lock(&self.state.script) = Arc::new(script);
    }
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, state: Arc<State>, way: Way) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let (state, way) = (Arc::clone(&state), way.clone());
        connections.spawn(async move {
            if let Some((stream, is_http2)) = shake_hands(stream, way).await {
                serve(stream, is_http2, state).await;
            }
        });
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// `None` where the client did not like the certificate, or the server that of the client.
async fn shake_hands(stream: TcpStream, way: Way) -> Option<(Box<dyn Stream>, bool)> {
    match way {
        Way::Http1 => Some((Box::new(stream), false)),
        Way::Http2 => Some((Box::new(stream), true)),
        Way::Tls(acceptor) => {
            let stream = acceptor.accept(stream).await.ok()?;
            let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            Some((Box::new(stream), is_http2))
        }
    }
}

async fn serve(stream: Box<dyn Stream>, is_http2: bool, state: Arc<State>) {
    let connection = state.connections.fetch_add(1, Ordering::SeqCst);
    let service = service_fn(move |request| answer(request, connection, Arc::clone(&state)));
    let stream = TokioIo::new(stream);
    // A client that goes away is a part of the tests.
    let _ = if is_http2 {
        let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        connection.serve_connection(stream, service).await
    } else {
        let connection = hyper::server::conn::http1::Builder::new();
        connection.serve_connection(stream, service).await
    };
}

async fn answer(
    request: Request<Incoming>,
    connection: usize,
    state: Arc<State>,
) -> Result<Response<Pieces>, Infallible> {
    let number = state.count.fetch_add(1, Ordering::SeqCst);
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes());
    let seen = Seen {
        number,
        connection,
        at: Instant::now(),
        method: parts.method,
        version: parts.version,
        target: parts.uri.to_string(),
        headers: parts.headers,
        body: body.unwrap_or_default(),
    };
    lock(&state.seen).push(seen.clone());
    let script = Arc::clone(&lock(&state.script));
    let reply = script(&seen);
    sleep(reply.after).await;
    let mut response = Response::builder().status(reply.status);
    for (name, value) in reply.headers {
        response = response.header(name, value);
    }
    let mut pieces = reply.pieces;
    if !reply.body.is_empty() {
        pieces.push_front((Duration::ZERO, reply.body));
    }
    let pieces = Pieces {
        pieces,
        waiting: None,
    };
    Ok(response.body(pieces).expect("a response"))
}

struct Pieces {
    pieces: VecDeque<(Duration, Bytes)>,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        let Some((wait, _)) = this.pieces.front() else {
            return Poll::Ready(None);
        };
        if !wait.is_zero() {
            let wait = *wait;
            let waiting = this.waiting.get_or_insert_with(|| Box::pin(sleep(wait)));
            ready!(waiting.as_mut().poll(cx));
            this.waiting = None;
        }
        let piece = this.pieces.pop_front();
        Poll::Ready(piece.map(|(_, piece)| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        match self.pieces.iter().collect::<Vec<_>>()[..] {
            [] => SizeHint::with_exact(0),
            [(wait, whole)] if wait.is_zero() => SizeHint::with_exact(whole.len() as u64),
            _ => SizeHint::default(),
        }
    }
}
