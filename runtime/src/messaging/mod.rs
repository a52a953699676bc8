//! Messaging: the engine that runs subscriptions, and the broker adapters.

pub(crate) mod adapters;
mod crash;
mod dead_letters;
mod durability;
mod engine;
#[cfg(feature = "kafka")]
pub mod kafka;
pub(crate) mod ladder;
#[cfg(feature = "memory")]
pub mod memory;
mod options;
mod planned;
mod port;
mod positions;
#[cfg(feature = "rabbitmq")]
pub mod rabbitmq;
#[cfg(feature = "redis")]
pub mod redis;
pub(crate) mod settings;

pub use crash::{CrashPoint, CrashPoints};
pub use dead_letters::{DeadLetter, DeadLetters, Redrive};
pub use durability::{DurabilityConcern, DurabilityWeight};
pub(crate) use engine::MAIN_BROKER;
pub use engine::{
    BrokerLimits, Drained, Environment, PublishTarget, Publishing, Routes, Runner,
    SubscriptionHealth,
};
pub use options::*;
pub use planned::{PlannedHandler, PlannedSubscription};
pub use port::*;
pub use positions::Positions;
