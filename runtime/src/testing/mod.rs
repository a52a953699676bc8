//! What the tests of a service need: its app on an embedded broker in virtual time, with crashes and
//! faults; real servers that end with the test; and a network that fails on demand.

mod app;
#[doc(hidden)]
pub mod assertions;
#[cfg(feature = "http")]
mod discovery;
mod proxy;
#[cfg(unix)]
mod server;
#[cfg(feature = "http")]
mod upstream;

pub use app::{TestApp, TestAppBuilder};
#[cfg(feature = "http")]
#[cfg_attr(docsrs, doc(cfg(feature = "http")))]
pub use discovery::ScriptedDiscovery;
pub use proxy::{Direction, FaultProxy};
#[cfg(unix)]
pub use server::{
    KafkaCluster, KafkaDoor, KafkaNode, RabbitMqCluster, RabbitMqNode, RedisNode, ServerError,
    ServerFixture, TlsFiles,
};
#[cfg(feature = "http")]
#[doc(hidden)]
pub use upstream::assertions as upstream_assertions;
#[cfg(feature = "http")]
#[cfg_attr(docsrs, doc(cfg(feature = "http")))]
pub use upstream::{Answer, Upstream, UpstreamInstance, UpstreamRequest};
