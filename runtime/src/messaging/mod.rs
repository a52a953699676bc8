//! Messaging: the engine that runs subscriptions, and the broker adapters.

mod crash;
#[cfg(feature = "memory")]
pub mod memory;
mod options;
mod planned;
mod port;

pub use crash::{CrashPoint, CrashPoints};
pub use options::*;
pub use planned::{PlannedHandler, PlannedSubscription};
pub use port::*;
