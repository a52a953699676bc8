//! A broker under test: what an app needs to run on it, and a foreign client that looks at it.

use std::error::Error;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use interline::config::Config;
use interline::{App, Headers};
use interline_tests::servers::Server;
use tokio::sync::mpsc;

mod kafka;
mod memory;
mod rabbitmq;
mod redis;
mod redis_pubsub;

pub(crate) use rabbitmq::RabbitMqBench;

/// What can go wrong with a bench.
pub(crate) type Trouble = Box<dyn Error + Send + Sync>;

/// A place on a broker to be.
pub(crate) type Opening = BoxFuture<'static, Result<Arc<dyn Bench>, Trouble>>;

/// A kind of broker, and how a new place on it is had.
pub(crate) struct Place {
    /// The kind, as the configuration names it.
    pub(crate) kind: &'static str,
    /// The server that it needs; one that needs none runs in virtual time.
    pub(crate) server: Option<Server>,
    /// A place that nobody else uses: a virtual host, a prefix, a store.
    pub(crate) open: fn() -> Opening,
}

/// Every broker that the cases run on.
pub(crate) const PLACES: &[Place] = &[
    Place {
        kind: "kafka",
        server: Some(Server::Kafka),
        open: || Box::pin(async { Ok(Arc::new(kafka::KafkaBench::open().await?) as _) }),
    },
    Place {
        kind: "memory",
        server: None,
        open: || Box::pin(async { Ok(memory::MemoryBench::open() as _) }),
    },
    Place {
        kind: "rabbitmq",
        server: Some(Server::RabbitMq),
        open: || Box::pin(async { Ok(Arc::new(RabbitMqBench::open().await?) as _) }),
    },
    Place {
        kind: "redis",
        server: Some(Server::Redis),
        open: || Box::pin(async { Ok(Arc::new(redis::RedisBench::open().await?) as _) }),
    },
    Place {
        kind: "redis-pubsub",
        server: Some(Server::Redis),
        open: || Box::pin(async { Ok(Arc::new(redis_pubsub::ChannelBench::open().await?) as _) }),
    },
];

/// A place on a broker.
///
/// Everything but the first three methods is done by a client that knows nothing of Interline, with
/// the names that `docs/wire.md` tells the users of other languages.
pub(crate) trait Bench: Send + Sync {
    /// The configuration of a broker called `broker` at this place, as a user writes it.
    fn configure(&self, config: Config, broker: &str) -> Config;

    /// What an app of `instance` needs beside its configuration.
    fn install(&self, app: App, _broker: &str, _instance: &str) -> App {
        app
    }

    /// The process of `instance` is gone without a word. Where an app has a runtime of its own, its
    /// connections have ended with that.
    fn killed(&self, _instance: &str) {}

    /// Publishes as somebody else; a header that the broker has a field of its own for (message id,
    /// content type) goes there.
    fn publish<'a>(
        &'a self,
        topic: &'a str,
        body: Bytes,
        headers: Headers,
    ) -> BoxFuture<'a, Result<(), Trouble>>;

    /// Everything that is published to a topic from now on.
    fn listen<'a>(&'a self, topic: &'a str)
    -> BoxFuture<'a, Result<mpsc::Receiver<Seen>, Trouble>>;

    /// Takes out the dead letters that a subscription has now, oldest first.
    fn take_dead<'a>(
        &'a self,
        group: &'a str,
        topic: &'a str,
    ) -> BoxFuture<'a, Result<Vec<Seen>, Trouble>>;

    /// How many messages of a subscription nobody has in hand or has finished; those that wait for a
    /// retry are not counted.
    fn left<'a>(&'a self, group: &'a str, topic: &'a str) -> BoxFuture<'a, Result<usize, Trouble>>;

    /// Ends a place where everything went well.
    fn close(&self) -> BoxFuture<'_, Result<(), Trouble>> {
        Box::pin(async { Ok(()) })
    }
}

/// A message as a foreign client sees it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Seen {
    /// The headers; those that the broker has a field of its own for, from there.
    pub(crate) headers: Headers,
    pub(crate) body: Bytes,
}

impl Seen {
    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header as text, empty where it is missing.
    pub(crate) fn header(&self, name: &str) -> String {
        self.headers
            .text(name)
            .map(|text| text.into_owned())
            .unwrap_or_default()
    }
}
