//! What a service's author writes most: `use interline::prelude::*;`.

pub use crate::config::Config;
pub use crate::handling::{
    Batch, BatchOutcome, Cancel, Failure, Fate, Meta, Out, Outcome, Publish, PublishError,
    Publisher, Raw, Reply, RequestError, Settle, State,
};
#[cfg(feature = "http")]
pub use crate::http::{CallError, CallOptions};
pub use crate::launch::{App, Running};
pub use crate::message::{Headers, Message, MessageId};
pub use crate::runtime;
#[cfg(feature = "macros")]
pub use interline_macros::{Failure, Message, Messages, service_client, subscriber};

pub use serde::{Deserialize, Serialize};
