//! RabbitMQ servers that are one cluster.

use std::fmt;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::local::LocalServer;
use super::rabbitmq::{
    Among, KIND, RabbitMqNode, external, external_url, node_name, port_was_taken, program,
};
use super::url;
use super::workplace::{Workplace, free_ports};
use super::{Launch, ServerError, ServerFixture};

/// How long a server may take to say which nodes run.
const ANSWER: Duration = Duration::from_secs(5);

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
        let first_name = amqp_port(&first).map(node_name).unwrap_or_default();
        let among = Among {
            names: Some(port),
            joins: Some(&first_name),
        };
        let mut servers = vec![first];
        // One after the other: two that join at once can wait for each other's locks, and so can whoever uses
        // the cluster before all of them run.
        while servers.len() < count {
            let next = self.launch(program, &among)?;
            next.wait_ready(limit).await?;
            servers.push(next);
            all_run(&servers, limit).await?;
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

/// Waits until every server sees all of them run.
async fn all_run(servers: &[ServerFixture], limit: Duration) -> Result<(), ServerError> {
    let begun = Instant::now();
    for server in servers {
        loop {
            let seen = match timeout(ANSWER, running(server)).await {
                Ok(Ok(seen)) if seen == servers.len() => break,
                Ok(Ok(seen)) => format!("it sees {seen} of {} nodes run", servers.len()),
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no answer within {} s", ANSWER.as_secs()),
            };
            if begun.elapsed() > limit {
                return Err(ServerError::NotReady {
                    server: KIND,
                    waited: limit,
                    last: seen,
                });
            }
            sleep(Duration::from_millis(100)).await;
        }
    }
    Ok(())
}

/// How many nodes a server sees run.
async fn running(server: &ServerFixture) -> io::Result<usize> {
    let url = server.management_url().unwrap_or_default();
    let place = url.rsplit('@').next().unwrap_or_default();
    let mut stream = TcpStream::connect(place).await?;
    // As the user `guest`, in the form whose answers end with the connection.
    let request =
        "GET /api/nodes?columns=running HTTP/1.0\r\nauthorization: Basic Z3Vlc3Q6Z3Vlc3Q=\r\n\r\n";
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    Ok(answer.matches("\"running\":true").count())
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
