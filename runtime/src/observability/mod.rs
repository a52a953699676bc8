//! What can be seen from outside: correlation and trace context, the metrics catalogue.

mod context;
pub mod metrics;

pub use context::{Correlation, TraceContext};
