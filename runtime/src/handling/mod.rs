//! What happens around one call of a handler: its arguments are extracted, its result becomes an
//! outcome, and what it sends is prepared.
//!
//! Nothing here talks to a broker. Generated code calls this room; the engine in `messaging` runs it.

mod batch;
mod bind;
#[cfg(feature = "http")]
mod errand;
mod extract;
mod failure;
mod fault;
mod handler;
mod middleware;
mod out;
mod outcome;
mod payload;
mod publish;
mod publisher;
mod reply;
mod request;
mod scope;
mod settle;

use std::pin::Pin;

#[doc(hidden)]
pub use batch::run_batch;
pub use batch::{Batch, BatchItem, BatchOutcome, IntoBatchOutcome};
pub(crate) use bind::short_type_name;
pub use bind::{Bind, BindFault, States};
#[cfg(feature = "http")]
pub(crate) use errand::Errand;
pub use extract::{
    Extract, Meta, Rejection, State, header, optional_header, optional_segment, segment,
};
pub(crate) use failure::truncate;
pub use failure::{Failure, describe};
pub use fault::Fault;
pub use handler::{BatchFn, Handler, OneFn};
pub use middleware::{Middleware, Next, PublishMiddleware, PublishNext};
pub use out::Out;
pub use outcome::{Failed, Fate, IntoOutcome, Outcome, Reason};
#[cfg(feature = "protobuf")]
pub use payload::foreign_protobuf;
pub(crate) use payload::unknown_type;
pub use payload::{Payload, PayloadError, Raw, foreign, message, tombstone};
pub use publish::{PublishError, PublishErrorKind, PublishPort, Receipt};
pub use publisher::{Publish, Publishable, Publisher};
pub use reply::Reply;
pub(crate) use request::is_request;
pub use request::{Answer, Call, RequestError, RequestErrorKind};
pub use scope::{Cancel, OnUnknown, Scope, SubscriberContext};
pub use settle::Settle;

/// A boxed future, as it crosses the borders between rooms.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
