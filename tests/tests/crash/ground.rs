//! The kinds of broker, and a part of one that belongs to a case.

use std::sync::Arc;

use interline::Config;
use interline::testing::ServerFixture;
use interline_tests::redis::Database;
use interline_tests::servers::{self, Server, Vhost};
use serde_json::json;

use crate::outside::Outside;
use crate::scene::PREFETCH;
use crate::topics::Topics;
use crate::trouble::{Outcome, Trouble};

/// Where the outputs go.
pub(crate) const OUTPUT: &str = "ledger.output";
/// Who reads the outputs in the end.
pub(crate) const SINK: &str = "ledger-outputs";

/// How many partitions the topics of a case have.
pub(crate) const PARTITIONS: u32 = 4;
/// What is settled between two commits of Kafka's positions, at the pace of the load.
const PER_COMMIT: usize = 150;

/// A kind of broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Kafka,
    RabbitMq,
    Redis,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Kafka, Self::RabbitMq, Self::Redis];

    /// What the names of its cases begin with.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::RabbitMq => "rabbitmq",
            Self::Redis => "redis",
        }
    }

    pub(crate) fn server(self) -> Server {
        match self {
            Self::Kafka => Server::Kafka,
            Self::RabbitMq => Server::RabbitMq,
            Self::Redis => Server::Redis,
        }
    }

    /// The server that the cases share.
    pub(crate) async fn shared(self) -> Outcome<&'static ServerFixture> {
        Ok(match self {
            Self::Kafka => servers::kafka().await?,
            Self::RabbitMq => servers::rabbitmq().await?,
            Self::Redis => servers::redis().await?,
        })
    }

    /// A server of one's own.
    pub(crate) async fn own(self) -> Outcome<ServerFixture> {
        Ok(match self {
            Self::Kafka => ServerFixture::kafka().start().await?,
            Self::RabbitMq => ServerFixture::rabbitmq().start().await?,
            Self::Redis => ServerFixture::redis().start().await?,
        })
    }

    /// What the service is told about it, so that it notices soon what is lost.
    pub(crate) fn settings(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Kafka => &[
                ("COMMIT_INTERVAL", "50ms"),
                ("PARTITIONS", "4"),
                ("SESSION_TIMEOUT", "2s"),
            ],
            Self::RabbitMq => &[("HEARTBEAT", "2s")],
            Self::Redis => &[
                ("CLAIM_AFTER", "2s"),
                ("COMMAND_TIMEOUT", "2s"),
                ("LEASE", "2s"),
            ],
        }
    }
}

impl Kind {
    /// What the service logs when it notices that the broker is gone.
    pub(crate) fn lost(self) -> &'static str {
        match self {
            Self::Kafka => "answers; trying again",
            Self::RabbitMq | Self::Redis => "connection lost",
        }
    }

    /// How many attempts are repeated at most when the service, or its connection, ends once without a word:
    /// what was in flight, twice where a copy was confirmed and its original was not settled.
    pub(crate) fn repeats_max(self) -> usize {
        let uncommitted = if self == Self::Kafka { PER_COMMIT } else { 0 };
        2 * PREFETCH + uncommitted
    }
}

/// A part of a server that belongs to one case.
pub(crate) enum Ground {
    Kafka(Arc<Topics>),
    RabbitMq(Vhost),
    Redis(Database),
}

impl Ground {
    /// A new one, with a place for the outputs.
    pub(crate) async fn on(kind: Kind, server: &ServerFixture) -> Outcome<Self> {
        match kind {
            Kind::Kafka => {
                let topics = Topics::create_on(server.url()).await?;
                Ok(Self::Kafka(Arc::new(topics)))
            }
            Kind::RabbitMq => {
                let vhost = Vhost::create_on(server).await?;
                let management = &vhost.management;
                management.declare_exchange("interline", "topic").await?;
                management.declare_queue(SINK, json!({})).await?;
                management.bind_queue("interline", SINK, OUTPUT).await?;
                Ok(Self::RabbitMq(vhost))
            }
            Kind::Redis => {
                let database = Database::create_on(server).await?;
                let make = ["XGROUP", "CREATE", OUTPUT, SINK, "$", "MKSTREAM"];
                database.command(&make).await?;
                Ok(Self::Redis(database))
            }
        }
    }

    pub(crate) fn url(&self) -> &str {
        match self {
            Self::Kafka(topics) => &topics.url,
            Self::RabbitMq(vhost) => &vhost.url,
            Self::Redis(database) => &database.url,
        }
    }

    /// What the names of everything in it begin with, where that keeps it apart.
    pub(crate) fn prefix(&self) -> Option<&str> {
        match self {
            Self::Kafka(topics) => Some(&topics.prefix),
            Self::RabbitMq(_) | Self::Redis(_) => None,
        }
    }

    /// What a publisher at `url` is told.
    pub(crate) fn config(&self, url: &str) -> Config {
        let config = Config::new()
            .with("service.name", "ledger-load")
            .with("brokers.main.url", url);
        match self.prefix() {
            Some(prefix) => config.with("naming.prefix", prefix),
            None => config,
        }
    }

    /// A look at it with a plain client.
    pub(crate) async fn outside(&self) -> Outcome<Outside> {
        match self {
            Self::Kafka(topics) => Ok(Outside::Kafka(Arc::clone(topics))),
            Self::RabbitMq(_) | Self::Redis(_) => Outside::connect(self.url()).await,
        }
    }

    /// The virtual host, for what only RabbitMQ has.
    pub(crate) fn vhost(&self) -> Outcome<&Vhost> {
        match self {
            Self::RabbitMq(vhost) => Ok(vhost),
            Self::Kafka(_) | Self::Redis(_) => Err(Trouble::new("there is no virtual host")),
        }
    }

    /// The database, for what only Redis has.
    pub(crate) fn database(&self) -> Outcome<&Database> {
        match self {
            Self::Redis(database) => Ok(database),
            Self::Kafka(_) | Self::RabbitMq(_) => Err(Trouble::new("there is no database")),
        }
    }

    /// Whether the broker would bring everything back after a kill at this moment.
    pub(crate) async fn is_safe(&self) -> Outcome<bool> {
        let Self::RabbitMq(vhost) = self else {
            return Ok(true);
        };
        // Only once it has counted their messages do quorum queues of RabbitMQ 3.10 survive a kill. A
        // broker that is still starting answers with errors.
        let Ok(queues) = vhost.management.queues().await else {
            return Ok(false);
        };
        Ok(!queues.is_empty() && queues.iter().all(|queue| queue.messages_ready.is_some()))
    }

    /// The queues beside its own in which messages of `queue` wait.
    pub(crate) async fn delay_queues(&self) -> Outcome<Vec<String>> {
        let Self::RabbitMq(vhost) = self else {
            return Ok(Vec::new());
        };
        let queues = vhost.management.queues().await?;
        let names = queues.into_iter().map(|queue| queue.name);
        Ok(names.filter(|name| name.contains(".retry.")).collect())
    }

    /// Whether a retry of `queue` waits for its time; not, if the broker does not answer.
    pub(crate) async fn has_delayed(&self, queue: &str) -> bool {
        let looking = async {
            let outside = self.outside().await?;
            match self {
                Self::Kafka(topics) => Ok(topics.delayed(queue).await?.unread > 0),
                Self::RabbitMq(_) => {
                    for queue in self.delay_queues().await? {
                        let counts = outside.counts(&queue).await?;
                        if counts.is_some_and(|counts| counts.ready > 0) {
                            return Ok(true);
                        }
                    }
                    Ok(false)
                }
                Self::Redis(_) => Ok(outside.delayed(queue).await? > 0),
            }
        };
        let found: Outcome<bool> = looking.await;
        found.unwrap_or(false)
    }

    /// The outputs: the identity and the body of each.
    pub(crate) async fn outputs(&self, outside: &Outside) -> Outcome<Vec<(String, Vec<u8>)>> {
        match self {
            Self::Kafka(topics) => topics.outputs().await,
            Self::RabbitMq(_) => outside.drain(SINK).await,
            Self::Redis(_) => outside.entries(OUTPUT).await,
        }
    }

    pub(crate) async fn delete(self) -> Outcome {
        match self {
            Self::Kafka(topics) => topics.close().await,
            Self::RabbitMq(vhost) => vhost.delete().await?,
            Self::Redis(database) => database.delete().await?,
        }
        Ok(())
    }
}
