//! What the tests of a service need: real servers that end with the test, and a network that fails
//! on demand.

mod proxy;
#[cfg(unix)]
mod server;

pub use proxy::{Direction, FaultProxy};
#[cfg(unix)]
pub use server::{RabbitMqNode, ServerError, ServerFixture, TlsFiles};
