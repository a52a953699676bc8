//! Messaging: the engine that runs subscriptions, and the broker adapters.

pub(crate) mod adapters;
mod crash;
mod engine;
#[cfg(feature = "memory")]
pub mod memory;
mod options;
mod planned;
mod port;
pub(crate) mod settings;

pub use crash::{CrashPoint, CrashPoints};
pub(crate) use engine::MAIN_BROKER;
pub use engine::{
    BrokerLimits, Drained, Environment, PublishTarget, Publishing, Routes, Runner,
    SubscriptionHealth,
};
pub use options::*;
pub use planned::{PlannedHandler, PlannedSubscription};
pub use port::*;
