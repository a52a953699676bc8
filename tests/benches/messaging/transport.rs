//! What a table needs of a broker. A further broker is a further implementation, not further tables.

use std::any::Any;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use interline::config::Config;

use crate::Result;
use crate::order::Probe;
use crate::sdk::{self, Handler, Publishes, VARIANTS};

/// What keeps a raw client's connection open until the broker was asked.
pub(crate) type Open = Box<dyn Any + Send>;

/// What publishes when it is awaited.
pub(crate) type Publishing = BoxFuture<'static, Result<()>>;

/// A broker with a raw client.
pub(crate) trait Transport: Send + Sync {
    /// The server, its version, and which kind of queue.
    fn title(&self) -> String;

    /// What is done with a message.
    fn consumes(&self) -> &'static str {
        "consume and acknowledge"
    }

    /// How many times as many messages of a size a table needs as on RabbitMQ, so that it takes long
    /// enough to be measured.
    fn times(&self, _size: usize) -> u64 {
        1
    }

    /// How the SDK reaches it.
    fn config(&self) -> Config;

    /// The same, with what the subscription of the group `group` needs.
    fn config_of(&self, group: &str) -> Config;

    /// Where the messages of a group are, for others.
    #[allow(
        dead_code,
        reason = "for peers, which are brought by a program of their own"
    )]
    fn place(&self, group: &str) -> Place;

    /// The SDK's handler that suits it.
    fn handler(&self) -> Handler {
        Handler::AtLeastOnce
    }

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

    /// Connects one of them; what it gives publishes when it is awaited, at most `load.open` not yet
    /// confirmed.
    fn publish_raw(&self, which: usize, load: Load) -> BoxFuture<'_, Result<Publishing>>;

    /// Makes what is published reach the group's queue.
    fn declare<'a>(&'a self, group: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(sdk::declare(self.config_of(group), self.handler()))
    }

    /// Makes ready what all of `groups` consume: published once, so that they read the same bytes.
    fn fill<'a>(&'a self, groups: &'a [String], load: Load) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            for group in groups {
                self.declare(group).await?;
            }
            let filler = Publishes::connect(self.config(), VARIANTS[1]).await?;
            let filled = filler.publish(load).await;
            filler.close().await;
            filled?;
            for group in groups {
                self.holds(group, load.count).await?;
            }
            Ok(())
        })
    }

    /// Delivers what was made ready, on a broker that keeps nothing, as `probe` takes it.
    fn feed<'a>(&'a self, _group: &'a str, _probe: Arc<Probe>) -> BoxFuture<'a, Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Waits until the server says that the group's queue holds `ready` messages, and that nothing
    /// is out.
    fn holds<'a>(&'a self, group: &'a str, ready: u64) -> BoxFuture<'a, Result<()>>;

    /// Empties the group's queue.
    fn purge<'a>(&'a self, group: &'a str) -> BoxFuture<'a, Result<()>>;

    /// Removes the group's queue.
    fn remove<'a>(&'a self, group: &'a str) -> BoxFuture<'a, Result<()>>;

    /// Removes everything.
    fn end(&self) -> BoxFuture<'_, Result<()>>;
}

/// What is published.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) count: u64,
    pub(crate) size: usize,
    pub(crate) open: usize,
}

/// Where the messages of a group are, for a client that knows nothing of the SDK.
#[allow(
    dead_code,
    reason = "for peers, which are brought by a program of their own"
)]
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) url: String,
    /// The queue, topic, stream or channel.
    pub(crate) source: String,
    /// The group, where the broker has groups.
    pub(crate) group: String,
}
