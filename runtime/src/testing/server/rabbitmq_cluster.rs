//! RabbitMQ servers that are one cluster.

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::local::LocalServer;
use super::rabbitmq::{
    Among, KIND, RabbitMqNode, external, external_url, node_name, port_was_taken, program,
};
use super::url;
use super::workplace::{Workplace, free_ports};
use super::{Launch, ServerError, ServerFixture};

/// What a server logs at the end of its start.
const STARTED: &str = "Server startup complete";

/// RabbitMQ servers that are one cluster; see [`RabbitMqNode::start_cluster`].
#[non_exhaustive]
pub struct RabbitMqCluster {
    servers: Vec<ServerFixture>,
    url: String,
    // Last: a node that is going still asks it.
    _names: Option<LocalServer>,
}

impl RabbitMqCluster {
    /// The address of all of them, as the configuration takes it:
    /// `amqp://user:password@host:port,host:port,host:port/vhost`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// [`url`](Self::url) with another virtual host in place of the default one.
    pub fn url_with_vhost(&self, vhost: &str) -> String {
        url::with_path(&self.url, vhost)
    }

    /// Each by itself, to be killed, paused and restarted. One alone with a server that is not ours.
    pub fn servers(&self) -> &[ServerFixture] {
        &self.servers
    }

    /// The one that the others call `name`, as the management API does: `interline-5672@localhost`.
    pub fn server(&self, name: &str) -> Option<&ServerFixture> {
        self.servers
            .iter()
            .find(|server| amqp_port(server).is_some_and(|port| node_name(port) == name))
    }

    /// The end of what each of them logged.
    pub fn logs(&self) -> String {
        let logs = self.servers.iter().map(ServerFixture::logs);
        logs.collect::<Vec<_>>().join("\n")
    }
}

impl fmt::Debug for RabbitMqCluster {
    // The address carries a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitMqCluster")
            .field("servers", &self.servers)
            .finish_non_exhaustive()
    }
}

impl RabbitMqNode {
    /// Starts so many of them (at most 5) as one cluster, in which a quorum queue has as many members as
    /// there are servers, up to three; waits until all are ready, for at most four minutes. A TLS listener
    /// is not part of [`RabbitMqCluster::url`].
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub async fn start_cluster(self, count: usize) -> Result<RabbitMqCluster, ServerError> {
        if let Some(url) = external_url() {
            let server = external(url.clone())?;
            server.wait_ready(Duration::from_secs(20)).await?;
            return Ok(RabbitMqCluster {
                servers: vec![server],
                url,
                _names: None,
            });
        }
        let program = program()?;
        let mut attempts = 3;
        loop {
            attempts -= 1;
            match self.try_cluster(&program, count.clamp(1, 5)).await {
                // Somebody took one of the ports after they were found free.
                Err(ServerError::Exited { log, .. }) if attempts > 0 && port_was_taken(&log) => {}
                ended => return ended,
            }
        }
    }

    async fn try_cluster(
        &self,
        program: &Path,
        count: usize,
    ) -> Result<RabbitMqCluster, ServerError> {
        let limit = Duration::from_secs(120);
        let [port] = free_ports()?;
        let names = name_server(port)?;
        let alone = Among {
            names: Some(port),
            joins: None,
        };
        let first = self.launch(program, &alone)?;
        // What would join a node that is not there yet becomes a cluster of its own.
        first.wait_ready(limit).await?;
        started(&first, limit).await?;
        let first_name = amqp_port(&first).map(node_name).unwrap_or_default();
        let among = Among {
            names: Some(port),
            joins: Some(&first_name),
        };
        let mut servers = vec![first];
        // One after the other: two that join at once can wait for each other's locks.
        while servers.len() < count {
            let next = self.launch(program, &among)?;
            next.wait_ready(limit).await?;
            started(&next, limit).await?;
            servers.push(next);
        }
        let places = servers.iter().filter_map(amqp_port);
        let places: Vec<String> = places.map(|port| format!("127.0.0.1:{port}")).collect();
        Ok(RabbitMqCluster {
            url: format!("amqp://guest:guest@{}/%2f", places.join(",")),
            servers,
            _names: Some(names),
        })
    }
}

/// Waits until a server that answers has come to the end of its start: a virtual host that is made before is
/// waited for in vain.
async fn started(server: &ServerFixture, limit: Duration) -> Result<(), ServerError> {
    let begun = Instant::now();
    while !server.logs().contains(STARTED) {
        if begun.elapsed() > limit {
            return Err(ServerError::NotReady {
                server: KIND,
                waited: limit,
                last: format!("it has not logged `{STARTED}`"),
            });
        }
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// Where the nodes find each other. It has to outlive each of them.
fn name_server(port: u16) -> Result<LocalServer, ServerError> {
    let workplace = Workplace::create(KIND)?;
    let log_directory = workplace.directory("log")?;
    let launch = Launch {
        program: "epmd".into(),
        arguments: Vec::new(),
        environment: vec![
            ("ERL_EPMD_ADDRESS", "127.0.0.1".to_owned()),
            ("ERL_EPMD_PORT", port.to_string()),
        ],
    };
    let names = LocalServer::new(KIND, workplace, log_directory, vec![launch])?;
    names.launch()?;
    Ok(names)
}

fn amqp_port(server: &ServerFixture) -> Option<u16> {
    url::Address::parse(server.url())?.port
}
