//! The three services as they may be in a demonstration or a test: each answers from a table, and can be
//! told to fail or to be slow.

use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A service that answers every path in the same way. It ends when it is dropped.
#[derive(Debug)]
pub struct Upstream {
    url: String,
    state: Arc<Mood>,
    serving: JoinHandle<()>,
}

#[derive(Debug)]
struct Mood {
    answer: RwLock<(StatusCode, String)>,
    delay_ms: AtomicU64,
    requests: AtomicUsize,
}

impl Upstream {
    /// Starts one on a free port of this machine, which answers with this JSON.
    ///
    /// # Errors
    /// Where there is no such port.
    pub async fn start(json: &str) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let state = Arc::new(Mood {
            answer: RwLock::new((StatusCode::OK, json.to_owned())),
            delay_ms: AtomicU64::new(0),
            requests: AtomicUsize::new(0),
        });
        let routes = Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&state));
        let serving = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, routes).await {
                eprintln!("an upstream ended: {error}");
            }
        });
        Ok(Self {
            url,
            state,
            serving,
        })
    }

    /// Where it is.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// How many requests it has had.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.state.requests.load(Ordering::Relaxed)
    }

    /// From now on it answers with this status.
    pub fn answer_with(&self, status: StatusCode) {
        let mut answer = self
            .state
            .answer
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        answer.0 = status;
    }

    /// From now on it takes this long.
    pub fn take(&self, delay: Duration) {
        let millis = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        self.state.delay_ms.store(millis, Ordering::Relaxed);
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn answer(State(mood): State<Arc<Mood>>, _: Uri) -> Response {
    mood.requests.fetch_add(1, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(mood.delay_ms.load(Ordering::Relaxed))).await;
    let (status, body) = mood
        .answer
        .read()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}
