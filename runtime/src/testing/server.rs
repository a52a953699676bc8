//! Real servers for tests.

mod guard;
mod kafka;
mod local;
mod rabbitmq;
mod rabbitmq_cluster;
mod readiness;
mod redis_node;
mod url;
mod workplace;

use std::fmt;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use local::LocalServer;
use readiness::Probe;

pub use kafka::{KafkaCluster, KafkaDoor, KafkaNode};
pub use rabbitmq::{RabbitMqNode, TlsFiles};
pub use rabbitmq_cluster::RabbitMqCluster;
pub use redis_node::RedisNode;

/// A server that a test talks to: a private process that this fixture started, or one of your own
/// that an environment variable names.
///
/// A private server listens on free ports of the loopback interface and keeps everything it writes
/// in a directory of its own. It ends when the fixture is dropped, and also when the test process
/// is killed: a guard process waits for that. What a guard could not end is swept when the next
/// fixture starts.
///
/// The fixture may be shared by tests that each have a runtime of their own. It needs real time: do
/// not start it on a runtime whose clock is paused.
///
/// # Examples
///
/// ```no_run
/// use interline::testing::ServerFixture;
/// use std::time::Duration;
///
/// # async fn example() -> Result<(), interline::testing::ServerError> {
/// let server = ServerFixture::rabbitmq()
///     .consumer_timeout(Duration::from_secs(10))
///     .start()
///     .await?;
/// println!("talk to {}", server.url());
///
/// server.kill().await?;
/// server.restart().await?;
/// # Ok(())
/// # }
/// ```
pub struct ServerFixture {
    kind: &'static str,
    url: String,
    management_url: Option<String>,
    tls_url: Option<String>,
    password_url: Option<String>,
    tls_password_url: Option<String>,
    doors: Vec<KafkaDoor>,
    probes: Vec<Probe>,
    local: Option<LocalServer>,
}

impl ServerFixture {
    /// Describes a RabbitMQ server; [`RabbitMqNode::start`] starts it.
    pub fn rabbitmq() -> RabbitMqNode {
        RabbitMqNode::new()
    }

    /// Describes a Kafka server; [`KafkaNode::start`] starts it.
    pub fn kafka() -> KafkaNode {
        KafkaNode::new()
    }

    /// The further listeners that [`KafkaNode::doors`] asked for.
    pub fn doors(&self) -> &[KafkaDoor] {
        &self.doors
    }

    /// Describes a Redis server; [`RedisNode::start`] starts it.
    pub fn redis() -> RedisNode {
        RedisNode::new()
    }

    /// The address clients connect to, credentials included: `amqp://user:password@host:port/vhost`
    /// for RabbitMQ, `redis://host:port` for Redis.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// [`url`](Self::url) with another database of Redis in place of the first.
    pub fn url_with_database(&self, database: u32) -> String {
        url::with_path(&self.url, &database.to_string())
    }

    /// [`url`](Self::url) with another virtual host in place of the default one.
    pub fn url_with_vhost(&self, vhost: &str) -> String {
        url::with_path(&self.url, vhost)
    }

    /// The address of the TLS listener; `None` unless [`KafkaNode::tls`], [`RabbitMqNode::tls`] or
    /// [`RedisNode::tls`] asked for one.
    pub fn tls_url(&self) -> Option<&str> {
        self.tls_url.as_deref()
    }

    /// The address of the listener that wants a name and a password; `None` unless
    /// [`KafkaNode::user`] asked for one.
    pub fn password_url(&self) -> Option<&str> {
        self.password_url.as_deref()
    }

    /// The address of the TLS listener that wants a name and a password, without them; `None` unless
    /// [`KafkaNode::user`] and [`KafkaNode::tls`] asked for one.
    pub fn tls_password_url(&self) -> Option<&str> {
        self.tls_password_url.as_deref()
    }

    /// The address of the management API, credentials included: `http://user:password@host:port`;
    /// `None` for a server that has no such API.
    pub fn management_url(&self) -> Option<&str> {
        self.management_url.as_deref()
    }

    /// Whether this fixture started the server, so that it can also kill, pause and restart it.
    pub fn is_ours(&self) -> bool {
        self.local.is_some()
    }

    /// The process id of the running server; `None` while it is down or when it is not ours.
    pub fn process_id(&self) -> Option<u32> {
        self.local.as_ref().and_then(LocalServer::process_id)
    }

    /// Kills the server as a power failure would (`kill -9`), and returns when it is gone.
    ///
    /// # Errors
    ///
    /// [`ServerError::NotOurs`] for an external server; [`ServerError::NotDown`] if the process is
    /// still there after ten seconds.
    pub async fn kill(&self) -> Result<(), ServerError> {
        self.ours("kill")?.kill().await
    }

    /// Asks the server to stop (`SIGTERM`), and returns when it is gone.
    ///
    /// # Errors
    ///
    /// [`ServerError::NotOurs`] for an external server; [`ServerError::NotDown`] if it has not
    /// stopped within a minute (it is then killed).
    pub async fn terminate(&self) -> Result<(), ServerError> {
        self.ours("terminate")?.terminate().await
    }

    /// Freezes the server (`SIGSTOP`): its connections stay open and nothing answers.
    ///
    /// # Errors
    ///
    /// [`ServerError::NotOurs`] for an external server, [`ServerError::Down`] when none is running.
    pub async fn pause(&self) -> Result<(), ServerError> {
        self.ours("pause")?.signal("STOP")
    }

    /// Lets a paused server run again (`SIGCONT`).
    ///
    /// # Errors
    ///
    /// [`ServerError::NotOurs`] for an external server, [`ServerError::Down`] when none is running.
    pub async fn resume(&self) -> Result<(), ServerError> {
        self.ours("resume")?.signal("CONT")
    }

    /// Starts the server again with the same data on the same ports, and returns when it is ready,
    /// for at most two minutes. A server that is still running is killed first.
    ///
    /// # Errors
    ///
    /// [`ServerError::NotOurs`] for an external server; otherwise as [`wait_ready`](Self::wait_ready).
    pub async fn restart(&self) -> Result<(), ServerError> {
        self.restart_without_waiting().await?;
        self.wait_ready(Duration::from_secs(120)).await
    }

    /// [`restart`](Self::restart) that does not wait for the server to be ready, for tests that
    /// measure how soon a client comes back.
    ///
    /// # Errors
    ///
    /// [`ServerError::NotOurs`] for an external server, [`ServerError::Io`] if the program cannot
    /// be started.
    pub async fn restart_without_waiting(&self) -> Result<(), ServerError> {
        let local = self.ours("restart")?;
        local.kill().await?;
        local.launch()
    }

    /// Waits until the server speaks its protocol: for RabbitMQ until an AMQP handshake is answered
    /// and the management API responds, for Redis until it answers a PING with its data loaded.
    ///
    /// # Errors
    ///
    /// [`ServerError::NotReady`] after `limit`, with what the last attempt saw;
    /// [`ServerError::Exited`] as soon as the process is gone, with the end of its log.
    pub async fn wait_ready(&self, limit: Duration) -> Result<(), ServerError> {
        readiness::wait(self.kind, &self.probes, self.local.as_ref(), limit).await
    }

    /// The end of what the server logged, at most 200 lines for each of its log files; empty for a
    /// server that is not ours.
    pub fn logs(&self) -> String {
        self.local
            .as_ref()
            .map(|local| local.logs(200))
            .unwrap_or_default()
    }

    /// The directory of the server's log files, which is removed with the fixture; `None` for a
    /// server that is not ours.
    pub fn log_directory(&self) -> Option<&Path> {
        self.local.as_ref().map(LocalServer::log_directory)
    }

    fn ours(&self, operation: &'static str) -> Result<&LocalServer, ServerError> {
        self.local.as_ref().ok_or(ServerError::NotOurs {
            server: self.kind,
            operation,
        })
    }
}

impl fmt::Debug for ServerFixture {
    // The addresses carry a password, which may be a real one when the server is not ours.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ServerFixture")
            .field("kind", &self.kind)
            .field("ours", &self.is_ours())
            .field("process_id", &self.process_id())
            .finish_non_exhaustive()
    }
}

/// Why a test's server could not be had or driven.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The environment variable that names an external server cannot be understood.
    #[error("{variable} is not an address of the form {expected}")]
    Address {
        /// The variable.
        variable: &'static str,
        /// What it should look like.
        expected: &'static str,
    },
    /// The operation needs a running server and there is none.
    #[error("{server} is not running, so there is nothing to {operation}; call restart first")]
    Down {
        /// The kind of server.
        server: &'static str,
        /// What was asked for.
        operation: &'static str,
    },
    /// The server ended by itself.
    #[error("{server} ended by itself ({status}); the end of its log:\n{log}")]
    Exited {
        /// The kind of server.
        server: &'static str,
        /// How it ended.
        status: String,
        /// The last lines it logged.
        log: String,
    },
    /// A file or process operation failed.
    #[error("{action} failed: {source}")]
    Io {
        /// What was being done.
        action: String,
        /// What the system said.
        source: io::Error,
    },
    /// The server's program is not on this machine.
    #[error(
        "{server} is not installed (looked for {looked_for}); run tests/servers/install {server} \
         in the repository of interline, install it by hand, or name a server of your own in {variable}"
    )]
    Missing {
        /// The kind of server.
        server: &'static str,
        /// Where its program was expected.
        looked_for: String,
        /// The variable that names an external server.
        variable: &'static str,
    },
    /// The server did not end in time.
    #[error("{server} was still running {} s after it was told to end", .waited.as_secs())]
    NotDown {
        /// The kind of server.
        server: &'static str,
        /// How long it was given.
        waited: Duration,
    },
    /// The server is external: only its owner may stop it.
    #[error(
        "cannot {operation} {server}: it was named by an environment variable, not started by the \
         fixture; unset the variable to test against a private server"
    )]
    NotOurs {
        /// The kind of server.
        server: &'static str,
        /// What was asked for.
        operation: &'static str,
    },
    /// The server did not answer in time.
    #[error("{server} was not ready after {} s: {last}", .waited.as_secs())]
    NotReady {
        /// The kind of server.
        server: &'static str,
        /// How long it was given.
        waited: Duration,
        /// What the last attempt saw.
        last: String,
    },
}

impl ServerError {
    fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::Io { action, source }
    }

    /// Whether the server is not installed, so that a test may be skipped rather than fail.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Missing { .. })
    }
}

/// One program of a server, started as often as the server is.
struct Launch {
    program: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(&'static str, String)>,
}
