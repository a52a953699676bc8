//! What a table needs of a broker. A further broker is a further implementation, not further tables.

use std::any::Any;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use interline::config::Config;

use crate::Result;
use crate::order::Probe;

/// What keeps a raw client's connection open until the broker was asked.
pub(crate) type Open = Box<dyn Any + Send>;

/// A broker with a raw client.
pub(crate) trait Transport: Send + Sync {
    /// The server, its version, and which kind of queue.
    fn title(&self) -> String;

    /// How the SDK reaches it.
    fn config(&self) -> Config;

    /// The same, with what the subscription of the group `group` needs.
    fn config_of(&self, group: &str) -> Config;

    /// Loops that a user of the raw client would write: handle what the group's queue holds, and
    /// acknowledge each message. Those of the shape of the SDK's own come last.
    fn raw_consumers(&self) -> &'static [&'static str];

    /// Runs one of them until `probe` is full.
    fn consume_raw(
        &self,
        which: usize,
        group: &str,
        probe: Arc<Probe>,
    ) -> BoxFuture<'_, Result<Open>>;

    /// Loops that publish orders of a size so that they reach every group's queue, each confirmed.
    fn raw_publishers(&self) -> &'static [&'static str];

    /// Connects one of them; what it gives publishes `count` orders when it is awaited, at most `open`
    /// not yet confirmed.
    fn publish_raw(
        &self,
        which: usize,
        load: Load,
    ) -> BoxFuture<'_, Result<BoxFuture<'static, Result<()>>>>;

    /// Waits until the server says that the group's queue holds `ready` messages, and that nothing
    /// is out.
    fn holds<'a>(&'a self, group: &'a str, ready: u64) -> BoxFuture<'a, Result<()>>;

    /// Empties the group's queue.
    fn purge<'a>(&'a self, group: &'a str) -> BoxFuture<'a, Result<()>>;

    /// Removes the group's queue.
    fn remove<'a>(&'a self, group: &'a str) -> BoxFuture<'a, Result<()>>;
}

/// What is published.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) count: u64,
    pub(crate) size: usize,
    pub(crate) open: usize,
}
