//! Interline: communication between microservices, declared by attributes.
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod clock;
pub mod config;
pub mod error;
pub mod handling;
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

mod start;

#[doc(hidden)]
pub mod __private;
pub mod prelude;

/// Running an app: `runtime::start(app)`.
pub mod runtime {
    pub use crate::launch::Running;
    pub use crate::start::{check, launch, start};
}

pub use config::{CommunicationConfig, Config};
pub use error::{CommunicationError, CommunicationErrorKind, Report, Result};
pub use handling::{
    Batch, BatchOutcome, Cancel, Failure, Fate, Meta, Out, Outcome, Publish, PublishError,
    Publisher, Raw, Settle, State,
};
pub use launch::{App, Running};
pub use manager::{CommunicationManager, Health};
pub use message::{HeaderValue, Headers, Message, MessageId};

#[cfg(feature = "macros")]
pub use interline_macros::{Failure, Message, Messages, service, subscriber};
