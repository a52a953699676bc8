//! Layers for the services that are called: axum, and every other server of tower (feature `tower`).
//!
//! ```no_run
//! # async fn example(running: interline::Running) {
//! use std::time::Duration;
//!
//! use interline::http::server::{ContextLayer, RateLimitLayer};
//!
//! let routes = axum::Router::new()
//!     .route("/orders", axum::routing::get(|| async { "none" }))
//!     // The last one is the outermost: health is answered whatever the limits say.
//!     .layer(RateLimitLayer::new(1_000, Duration::from_secs(1)))
//!     .layer(ContextLayer::new())
//!     .layer(running.health_layer());
//! # let _: axum::Router = routes;
//! # }
//! ```

mod answer;
mod context;
mod health;
mod rate_limit;

pub use context::{ContextLayer, ContextService};
pub use health::{HealthLayer, HealthReport, HealthService};
pub use rate_limit::{RateLimitLayer, RateLimitService};

/// The future of a layer.
pub type Answering<R, E> = std::pin::Pin<Box<dyn Future<Output = Result<R, E>> + Send>>;
