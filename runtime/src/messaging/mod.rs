//! Messaging: the engine that runs subscriptions, and the broker adapters.

mod crash;
mod dead_letters;
mod engine;
#[cfg(feature = "memory")]
pub mod memory;
mod options;
mod planned;
mod port;
#[cfg(feature = "rabbitmq")]
pub mod rabbitmq;

pub use crash::{CrashPoint, CrashPoints};
pub use dead_letters::{DeadLetter, DeadLetters, Redrive};
pub use engine::{
    BrokerLimits, Drained, Environment, PublishTarget, Publishing, Routes, Runner,
    SubscriptionHealth,
};
pub use options::*;
pub use planned::{PlannedHandler, PlannedSubscription};
pub use port::*;
