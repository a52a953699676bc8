//! What can be seen from outside: correlation and trace context, the metrics catalogue.

mod context;
pub mod metrics;

#[cfg(feature = "http")]
pub(crate) use context::is_correlation_id;
pub use context::{Correlation, TraceContext};
