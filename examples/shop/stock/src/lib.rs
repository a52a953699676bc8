//! Keeps goods for orders, and is asked over HTTP. Several instances share one shelf, as they would share
//! a database.

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::put;
use axum::{Json, Router};
use interline::http::server::ContextLayer;
use shop_contracts::Reservation;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// What is kept for whom.
#[derive(Debug, Default)]
pub struct Shelf(Mutex<BTreeSet<String>>);

impl Shelf {
    /// For how many orders something is kept.
    #[must_use]
    pub fn reserved(&self) -> usize {
        let orders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        orders.len()
    }

    /// Keeps the goods of an order, once: asked again, it changes nothing.
    fn reserve(&self, order_id: &str) {
        let mut orders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        orders.insert(order_id.to_owned());
    }
}

/// One instance of the service. It ends when it is dropped.
#[derive(Debug)]
pub struct Instance {
    url: String,
    state: Arc<Running>,
    serving: JoinHandle<()>,
}

#[derive(Debug)]
struct Running {
    shelf: Arc<Shelf>,
    fails: AtomicBool,
    failed: AtomicUsize,
}

impl Instance {
    /// Starts one on a free port of this machine.
    ///
    /// # Errors
    /// Where there is no such port.
    pub async fn start(shelf: &Arc<Shelf>) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let state = Arc::new(Running {
            shelf: Arc::clone(shelf),
            fails: AtomicBool::new(false),
            failed: AtomicUsize::new(0),
        });
        let routes = Router::new()
            .route("/stock/reservations/{order}", put(reserve))
            .with_state(Arc::clone(&state))
            .layer(ContextLayer::new());
        let serving = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, routes).await {
                eprintln!("an instance of stock ended: {error}");
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

    /// Makes it answer everything with 503, or work again.
    pub fn fail(&self, fails: bool) {
        self.state.fails.store(fails, Ordering::Relaxed);
    }

    /// How many requests it has answered with 503.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.state.failed.load(Ordering::Relaxed)
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn reserve(
    State(running): State<Arc<Running>>,
    Path(order_id): Path<String>,
) -> Result<Json<Reservation>, StatusCode> {
    if running.fails.load(Ordering::Relaxed) {
        running.failed.fetch_add(1, Ordering::Relaxed);
        return Err(StatusCode::SERVICE_UNAVAILABLE);
    }
    running.shelf.reserve(&order_id);
    Ok(Json(Reservation { order_id }))
}
