//! The service that is called: a process of its own, so that nothing of it counts for a row.

use std::convert::Infallible;
use std::env;
use std::io::{BufRead, BufReader, Read};
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::order::{BASE, Order};
use crate::{Result, rows};

/// The first argument of the process that is the upstream.
pub(crate) const ROLE: &str = "serve-orders";

/// How the upstream takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// On loopback; connections are kept.
    Kept,
    /// On all addresses of the machine, so that 127.0.0.0/8 is full of endpoints; each connection ends
    /// with its answer, so that there are never as many as there are addresses.
    Everywhere,
}

impl Manner {
    const ALL: [Self; 2] = [Self::Kept, Self::Everywhere];

    fn name(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Everywhere => "everywhere",
        }
    }
}

/// A running upstream; it ends when it is dropped, and with this process.
pub(crate) struct Upstream {
    process: Child,
    ports: Vec<u16>,
    control: reqwest::Client,
}

impl Upstream {
    /// One that listens on so many ports.
    pub(crate) fn start(ports: usize, manner: Manner) -> Result<Self> {
        let mut process = Command::new(env::current_exe()?)
            .args([ROLE, &ports.to_string(), manner.name()])
            // Closed by the system when this process ends, in whatever way.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = process.stdout.take().ok_or("it has an output")?;
        let mut this = Self {
            process,
            ports: Vec::new(),
            control: rows::plain_client()?,
        };
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let listening: std::result::Result<_, _> =
            line.split_whitespace().map(str::parse).collect();
        this.ports = listening?;
        if this.ports.len() != ports {
            return Err(format!("the upstream listens on {line:?}, not on {ports} ports").into());
        }
        Ok(this)
    }

    /// The port at this place.
    pub(crate) fn port(&self, at: usize) -> u16 {
        self.ports[at]
    }

    /// The address of the port at this place.
    pub(crate) fn url(&self, at: usize) -> String {
        format!("http://127.0.0.1:{}", self.ports[at])
    }

    pub(crate) fn urls(&self) -> impl Iterator<Item = String> {
        (0..self.ports.len()).map(|at| self.url(at))
    }

    /// How many orders the port at this place has given.
    pub(crate) async fn answered(&self, at: usize) -> Result<u64> {
        self.ask(at, "answered").await
    }

    /// How many orders all ports have given.
    pub(crate) async fn answered_by_all(&self) -> Result<u64> {
        self.ask(0, "answered-by-all").await
    }

    /// How many connections are open, that of the question included.
    pub(crate) async fn connections(&self) -> Result<u64> {
        self.ask(0, "connections").await
    }

    async fn ask(&self, at: usize, what: &str) -> Result<u64> {
        let url = format!("{}/{what}", self.url(at));
        let answer = self.control.get(url).send().await?.error_for_status()?;
        Ok(answer.text().await?.parse()?)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs as the upstream until the parent goes away.
pub(crate) fn serve(arguments: &[String]) -> Result<()> {
    let [ports, manner] = arguments else {
        return Err("the upstream takes a number of ports and a manner".into());
    };
    let ports: usize = ports.parse()?;
    let manner = Manner::ALL.into_iter().find(|known| known.name() == manner);
    let manner = manner.ok_or("the upstream knows no such manner")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let shared = Arc::new(Shared::default());
        let mut listening = Vec::new();
        for _ in 0..ports {
            let address = match manner {
                Manner::Kept => Ipv4Addr::LOCALHOST,
                Manner::Everywhere => Ipv4Addr::UNSPECIFIED,
            };
            let listener = TcpListener::bind((address, 0)).await?;
            listening.push(listener.local_addr()?.port().to_string());
            tokio::spawn(accept(listener, Arc::clone(&shared), manner));
        }
        println!("{}", listening.join(" "));
        let parent = || std::io::stdin().read_to_end(&mut Vec::new());
        tokio::task::spawn_blocking(parent).await??;
        Ok(())
    })
}

/// What all ports have together.
#[derive(Default)]
struct Shared {
    answered: AtomicU64,
    connections: AtomicU64,
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, manner: Manner) {
    let answered = Arc::new(AtomicU64::new(0));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // No file descriptors, most likely: some will come back.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        // Without it answers may wait for an acknowledgement, which every row would see.
        let _ = stream.set_nodelay(true);
        let (shared, answered) = (Arc::clone(&shared), Arc::clone(&answered));
        tokio::spawn(async move {
            shared.connections.fetch_add(1, Ordering::Relaxed);
            let service = service_fn(|request| {
                let answer = answer(&request, &answered, &shared);
                async { Ok::<_, Infallible>(answer) }
            });
            // A client that goes away is no fault here.
            let _ = http1::Builder::new()
                .keep_alive(manner == Manner::Kept)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            shared.connections.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

fn answer(
    request: &Request<Incoming>,
    answered: &AtomicU64,
    shared: &Shared,
) -> Response<Full<Bytes>> {
    let number = |count: &AtomicU64| count.load(Ordering::Relaxed).to_string().into_bytes();
    let body = match request.uri().path() {
        "/answered" => number(answered),
        "/answered-by-all" => number(&shared.answered),
        "/connections" => number(&shared.connections),
        path => {
            let order = path
                .strip_prefix(BASE)
                .and_then(|path| path.strip_prefix("/orders/"));
            let Some(id) = order.and_then(|id| id.parse().ok()) else {
                let mut lost = Response::default();
                *lost.status_mut() = hyper::StatusCode::NOT_FOUND;
                return lost;
            };
            answered.fetch_add(1, Ordering::Relaxed);
            shared.answered.fetch_add(1, Ordering::Relaxed);
            Order::numbered(id).json()
        }
    };
    let json = hyper::header::HeaderValue::from_static("application/json");
    let mut found = Response::new(Full::new(Bytes::from(body)));
    found
        .headers_mut()
        .insert(hyper::header::CONTENT_TYPE, json);
    found
}
