//! Redis as every room that uses it reaches it: where, as whom, over TLS or not, and what its errors
//! mean. What is done over a connection is the business of the room that opened it.

mod connection;
mod errors;
mod settings;

pub(crate) use connection::{Connection, Opening, Pushes, open};
pub(crate) use errors::{Failure, FailureKind};
pub(crate) use settings::Settings;

/// The oldest server that has what we use: `XADD NOMKSTREAM` and `XPENDING IDLE`.
pub(crate) const VERSION_MIN: (u32, u32) = (6, 2);
