//! Communication between microservices, declared by attributes.
//!
//! A message type derives [`Message`]; a subscriber is an `async fn` with [`#[subscriber]`](subscriber).
//! At start-up [`runtime::start`] collects what the macros registered, checks all of it together, and
//! connects it to a broker: the embedded one, or RabbitMQ or Kafka by configuration. Delivery is at least once;
//! failed attempts are repeated with backoff, and what is given up is kept with the reason.
//!
//! ```standalone_crate
//! use interline::prelude::*;
//!
//! interline::service!("greeter");
//!
//! #[derive(Message, Serialize, Deserialize)]
//! #[message(topic = "greetings.sent")]
//! struct Greeting {
//!     name: String,
//! }
//!
//! #[subscriber(concurrency = 4)]
//! async fn greet(greeting: Greeting) {
//!     println!("hello, {}", greeting.name);
//! }
//! # fn main() {}
//! ```
//!
//! | where | what |
//! |---|---|
//! | [`prelude`] | what a service's author writes most |
//! | [`App`], [`runtime`] | putting a program together and running it |
//! | [`config`] | `interline.toml`, environment, code; every mistake at once |
//! | [`message`] | contracts, headers, identities, codecs |
//! | [`handling`] | extractors, outcomes, failures, middleware, publishing |
//! | [`messaging`] | options of subscribers, the broker port, adapters, dead letters |
//! | `http` | clients of other services (feature `http`) |
//! | `discovery` | where those services are (feature `http`) |
//! | [`observability`] | trace context and the metrics catalogue |
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod clock;
pub mod config;
#[cfg(feature = "http")]
#[cfg_attr(docsrs, doc(cfg(feature = "http")))]
pub mod discovery;
pub mod error;
pub mod handling;
#[cfg(feature = "http")]
#[cfg_attr(docsrs, doc(cfg(feature = "http")))]
pub mod http;
pub mod launch;
pub mod manager;
pub mod message;
pub mod messaging;
pub mod observability;
pub mod plan;
pub mod registry;
pub mod resilience;
#[cfg(feature = "testing")]
#[cfg_attr(docsrs, doc(cfg(feature = "testing")))]
pub mod testing;

#[cfg(feature = "redis")]
mod redis;
#[cfg(any(feature = "http", feature = "rabbitmq"))]
mod security;
mod start;

#[doc(hidden)]
pub mod __private;
pub mod prelude;

/// Running an app: `runtime::start(app)`.
pub mod runtime {
    pub use crate::launch::{AppTopology, BrokerTopology, Running};
    pub use crate::start::{check, check_as, launch, start, topology};
}

pub use config::{CommunicationConfig, Config};
pub use error::{CommunicationError, CommunicationErrorKind, Report, Result};
pub use handling::{
    Batch, BatchOutcome, Cancel, Failure, Fate, Meta, Out, Outcome, Publish, PublishError,
    Publisher, Raw, Settle, State,
};
#[cfg(feature = "http")]
pub use http::{CallError, CallOptions, HttpClient};
pub use launch::{App, Running};
pub use manager::{CommunicationManager, Health};
pub use message::{HeaderValue, Headers, Message, MessageId};

#[cfg(feature = "macros")]
pub use interline_macros::{Failure, Message, Messages, service, service_client, subscriber};
