//! What the tests of a service need: its app on an embedded broker in virtual time, with crashes and
//! faults; real servers that end with the test; and a network that fails on demand.

mod app;
#[doc(hidden)]
pub mod assertions;
mod proxy;
#[cfg(unix)]
mod server;

pub use app::{TestApp, TestAppBuilder};
pub use proxy::{Direction, FaultProxy};
#[cfg(unix)]
pub use server::{
    KafkaDoor, KafkaNode, RabbitMqNode, RedisNode, ServerError, ServerFixture, TlsFiles,
};
