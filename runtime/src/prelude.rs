//! What a service's author writes most: `use interline::prelude::*;`.

pub use crate::handling::{
    Batch, BatchOutcome, Cancel, Failure, Fate, Meta, Out, Outcome, Publish, PublishError,
    Publisher, Raw, Settle, State,
};
pub use crate::message::{Headers, Message, MessageId};

pub use serde::{Deserialize, Serialize};
