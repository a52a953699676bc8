//! The kinds of broker, and a part of one that belongs to a case.

use interline::testing::ServerFixture;
use interline_tests::redis::Database;
use interline_tests::servers::{self, Server, Vhost};
use serde_json::json;

use crate::outside::Outside;
use crate::trouble::{Outcome, Trouble};

/// Where the outputs go.
pub(crate) const OUTPUT: &str = "ledger.output";
const SINK: &str = "ledger-outputs";

/// A kind of broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    RabbitMq,
    Redis,
}

impl Kind {
    pub(crate) const ALL: [Self; 2] = [Self::RabbitMq, Self::Redis];

    /// What the names of its cases begin with.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::RabbitMq => "rabbitmq",
            Self::Redis => "redis",
        }
    }

    pub(crate) fn server(self) -> Server {
        match self {
            Self::RabbitMq => Server::RabbitMq,
            Self::Redis => Server::Redis,
        }
    }

    /// The server that the cases share.
    pub(crate) async fn shared(self) -> Outcome<&'static ServerFixture> {
        Ok(match self {
            Self::RabbitMq => servers::rabbitmq().await?,
            Self::Redis => servers::redis().await?,
        })
    }

    /// A server of one's own.
    pub(crate) async fn own(self) -> Outcome<ServerFixture> {
        Ok(match self {
            Self::RabbitMq => ServerFixture::rabbitmq().start().await?,
            Self::Redis => ServerFixture::redis().start().await?,
        })
    }

    /// What the service is told about it, so that it notices soon what is lost.
    pub(crate) fn settings(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::RabbitMq => &[("HEARTBEAT", "2s")],
            Self::Redis => &[
                ("CLAIM_AFTER", "2s"),
                ("COMMAND_TIMEOUT", "2s"),
                ("LEASE", "2s"),
            ],
        }
    }
}

/// A part of a server that belongs to one case.
pub(crate) enum Ground {
    RabbitMq(Vhost),
    Redis(Database),
}

impl Ground {
    /// A new one, with a place for the outputs.
    pub(crate) async fn on(kind: Kind, server: &ServerFixture) -> Outcome<Self> {
        match kind {
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
            Self::RabbitMq(vhost) => &vhost.url,
            Self::Redis(database) => &database.url,
        }
    }

    /// The virtual host, for what only RabbitMQ has.
    pub(crate) fn vhost(&self) -> Outcome<&Vhost> {
        match self {
            Self::RabbitMq(vhost) => Ok(vhost),
            Self::Redis(_) => Err(Trouble::new("there is no virtual host")),
        }
    }

    /// The database, for what only Redis has.
    pub(crate) fn database(&self) -> Outcome<&Database> {
        match self {
            Self::Redis(database) => Ok(database),
            Self::RabbitMq(_) => Err(Trouble::new("there is no database")),
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
            let outside = Outside::connect(self.url()).await?;
            match self {
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
            Self::RabbitMq(_) => outside.drain(SINK).await,
            Self::Redis(_) => outside.entries(OUTPUT).await,
        }
    }

    pub(crate) async fn delete(self) -> Outcome {
        match self {
            Self::RabbitMq(vhost) => vhost.delete().await?,
            Self::Redis(database) => database.delete().await?,
        }
        Ok(())
    }
}
