//! Interline: communication between microservices, declared by attributes.
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod clock;
pub mod handling;
pub mod message;
pub mod messaging;
pub mod observability;
pub mod registry;

#[doc(hidden)]
pub mod __private;
pub mod prelude;

pub use handling::{
    Batch, BatchOutcome, Cancel, Failure, Fate, Meta, Out, Outcome, Publish, PublishError,
    Publisher, Raw, Settle, State,
};
pub use message::{HeaderValue, Headers, Message, MessageId};

#[cfg(feature = "macros")]
pub use interline_macros::{Failure, Message, Messages, service, subscriber};
