//! The brokers, each with a server of its own that may be killed.

use std::time::Duration;

use interline::config::Config;
use interline::testing::ServerFixture;
use interline_tests::management::Management;
use interline_tests::servers::{Server, unique_prefix};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::{LIMIT, Result};

/// The queue on RabbitMQ of the service's group and the topic of the restarts.
const QUEUE: &str = "bench.bench.beats";
const ASK: Duration = Duration::from_millis(1);

/// A kind of broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broker {
    Embedded,
    RabbitMq,
    Kafka,
    Redis,
}

impl Broker {
    pub(crate) const ALL: [Self; 4] = [Self::Embedded, Self::RabbitMq, Self::Kafka, Self::Redis];
    /// Those that can go away.
    pub(crate) const SERVERS: [Self; 3] = [Self::RabbitMq, Self::Kafka, Self::Redis];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Embedded => "embedded broker",
            Self::RabbitMq => "RabbitMQ, quorum queue",
            Self::Kafka => "Kafka",
            Self::Redis => "Redis Streams",
        }
    }

    /// A server of one's own; none where there is nothing to start.
    pub(crate) async fn start(self) -> Result<Place> {
        let server = match self {
            Self::Embedded => None,
            Self::RabbitMq => {
                Server::RabbitMq.available()?;
                Some(ServerFixture::rabbitmq().start().await?)
            }
            Self::Kafka => {
                Server::Kafka.available()?;
                Some(ServerFixture::kafka().start().await?)
            }
            Self::Redis => {
                Server::Redis.available()?;
                Some(ServerFixture::redis().start().await?)
            }
        };
        Ok(Place {
            server,
            broker: self,
            prefix: unique_prefix(),
        })
    }
}

/// Where the messages are.
pub(crate) struct Place {
    server: Option<ServerFixture>,
    broker: Broker,
    prefix: String,
}

impl Place {
    /// How a service reaches it, everything else as by default.
    pub(crate) fn config(&self) -> Config {
        let config = Config::new().with("service.name", "bench");
        let Some(server) = &self.server else {
            return config;
        };
        let config = config.with("brokers.main.url", server.url());
        if self.broker == Broker::Kafka {
            // A server that is not ours may know the names already.
            config.with("naming.prefix", self.prefix.as_str())
        } else {
            config
        }
    }

    pub(crate) fn server(&self) -> Result<&ServerFixture> {
        Ok(self.server.as_ref().ok_or("there is no server")?)
    }

    /// Waits until the server would bring everything back after a kill: RabbitMQ writes the register of
    /// its quorum queues late.
    pub(crate) async fn is_safe(&self) -> Result<()> {
        if self.broker == Broker::RabbitMq {
            let management = Management::of(self.server()?)?;
            let counted = |queue: &interline_tests::management::Queue| queue.messages().is_some();
            management.wait_for_queue(QUEUE, counted, LIMIT).await?;
        }
        Ok(())
    }

    /// Waits until the server's port opens, which is not yet that it answers.
    pub(crate) async fn opened(&self) -> Result<Instant> {
        let url = self.server()?.url();
        let place = url
            .split_once("://")
            .and_then(|(_, rest)| rest.split('/').next())
            .and_then(|authority| authority.rsplit('@').next())
            .ok_or("the address has no place")?;
        let end = Instant::now() + LIMIT;
        while Instant::now() < end {
            if TcpStream::connect(place).await.is_ok() {
                return Ok(Instant::now());
            }
            sleep(ASK).await;
        }
        Err("the port does not open".into())
    }
}
