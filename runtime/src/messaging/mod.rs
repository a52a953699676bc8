//! Messaging: the engine that runs subscriptions, and the broker adapters.

mod options;
mod planned;
mod port;

pub use options::*;
pub use planned::{PlannedHandler, PlannedSubscription};
pub use port::*;
