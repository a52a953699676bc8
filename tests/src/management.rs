//! A client of RabbitMQ's management API: what a test asks the server about from outside.
//!
//! Counts are statistics: those of classic queues lag by a second on the servers of
//! [`ServerFixture`], those of quorum queues by five. Wait for a condition that is false before the
//! action under test, with [`Management::wait_for_queue`].
//!
//! RabbitMQ 3.10 writes the register of its quorum queues late: one that was declared in the second
//! before a `kill -9` is there afterwards and does not work. A test that kills the server waits
//! until `messages_ready` is `Some` first.

mod http;

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use interline::testing::ServerFixture;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use http::Endpoint;

/// The management API of one server, speaking of one virtual host, `/` at first.
#[derive(Clone)]
pub struct Management {
    endpoint: Endpoint,
    vhost: String,
}

/// A queue as the server describes it.
#[derive(Debug, Clone, Deserialize)]
pub struct Queue {
    /// Its name.
    pub name: String,
    /// `classic`, `quorum` or `stream`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it survives a restart of the server.
    pub durable: bool,
    /// Whether it goes with its last consumer.
    pub auto_delete: bool,
    /// Whether it belongs to one connection.
    #[serde(default)]
    pub exclusive: bool,
    /// The arguments it was declared with.
    pub arguments: Map<String, Value>,
    /// The policy that applies to it, if one does.
    #[serde(default)]
    pub policy: Option<String>,
    /// Messages that wait for a consumer; `None` before the server has counted.
    #[serde(default)]
    pub messages_ready: Option<u64>,
    /// Messages that were delivered and not yet settled; `None` before the server has counted.
    #[serde(default)]
    pub messages_unacknowledged: Option<u64>,
    /// How many consumers it has; `None` before the server has counted.
    #[serde(default)]
    pub consumers: Option<u64>,
}

impl Queue {
    /// All its messages, ready and unacknowledged; `None` before the server has counted.
    pub fn messages(&self) -> Option<u64> {
        Some(self.messages_ready? + self.messages_unacknowledged?)
    }
}

/// An exchange as the server describes it.
#[derive(Debug, Clone, Deserialize)]
pub struct Exchange {
    /// Its name, empty for the default exchange.
    pub name: String,
    /// `direct`, `topic`, `fanout`, `headers` or a plugin's.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it survives a restart of the server.
    pub durable: bool,
    /// The arguments it was declared with.
    pub arguments: Map<String, Value>,
}

/// A binding of a queue.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Binding {
    /// The exchange, empty for the default one.
    pub source: String,
    /// The queue.
    pub destination: String,
    /// The routing key or pattern.
    pub routing_key: String,
    /// The arguments of the binding.
    pub arguments: Map<String, Value>,
}

/// A consumer as the server describes it.
#[derive(Debug, Clone, Deserialize)]
pub struct Consumer {
    /// Its tag.
    pub consumer_tag: String,
    /// How many messages it may hold; 0 means without limit.
    pub prefetch_count: u64,
    /// Whether it acknowledges.
    pub ack_required: bool,
    /// Whether deliveries go to it, where a queue has a single active consumer.
    #[serde(default)]
    pub active: Option<bool>,
}

/// Why the management API did not do what was asked.
#[derive(Debug)]
#[non_exhaustive]
pub enum ManagementError {
    /// The address is not of the form `http://user:password@host:port`.
    Address,
    /// The server has no management API.
    None,
    /// The connection failed.
    Io {
        /// The request.
        request: String,
        /// What the system said.
        source: io::Error,
    },
    /// The API refused.
    Refused {
        /// The request.
        request: String,
        /// The HTTP status.
        status: u16,
        /// What the API said.
        reason: String,
    },
    /// The answer is not what the API is known to answer.
    Malformed {
        /// The request.
        request: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A condition did not come true in time.
    Late {
        /// What was waited for.
        what: String,
        /// What was seen last.
        last: String,
    },
}

impl fmt::Display for ManagementError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address => formatter.write_str(
                "the address of the management API is not of the form http://user:password@host:port",
            ),
            Self::None => formatter.write_str("this server has no management API"),
            Self::Io { request, source } => write!(formatter, "{request}: {source}"),
            Self::Refused { request, status, reason } => {
                write!(formatter, "{request} was answered with {status}: {reason}")
            }
            Self::Malformed { request, reason } => write!(formatter, "{request}: {reason}"),
            Self::Late { what, last } => write!(formatter, "{what}; last seen: {last}"),
        }
    }
}

impl std::error::Error for ManagementError {}

type Result<T> = std::result::Result<T, ManagementError>;

impl Management {
    /// The API at `url`, `http://user:password@host:port`.
    ///
    /// # Errors
    ///
    /// [`ManagementError::Address`].
    pub fn new(url: &str) -> Result<Self> {
        let endpoint = Endpoint::parse(url).ok_or(ManagementError::Address)?;
        Ok(Self {
            endpoint,
            vhost: "/".to_owned(),
        })
    }

    /// The API of a server.
    ///
    /// # Errors
    ///
    /// [`ManagementError::None`], [`ManagementError::Address`].
    pub fn of(server: &ServerFixture) -> Result<Self> {
        Self::new(server.management_url().ok_or(ManagementError::None)?)
    }

    /// The same API, speaking of another virtual host.
    #[must_use]
    pub fn in_vhost(&self, vhost: &str) -> Self {
        Self {
            endpoint: self.endpoint.clone(),
            vhost: vhost.to_owned(),
        }
    }

    /// Makes a virtual host; the user of the API gets every permission in it.
    ///
    /// # Errors
    ///
    /// As any call: [`ManagementError::Io`], [`ManagementError::Refused`],
    /// [`ManagementError::Malformed`].
    pub async fn create_vhost(&self, name: &str) -> Result<()> {
        self.put(&["vhosts", name], json!({})).await?;
        // Given to its creator by some versions, not by all.
        self.in_vhost(name)
            .set_permissions(&self.endpoint.user, ".*", ".*", ".*")
            .await
    }

    /// Deletes a virtual host with everything in it, if there is one.
    ///
    /// # Errors
    ///
    /// As [`create_vhost`](Self::create_vhost).
    pub async fn delete_vhost(&self, name: &str) -> Result<()> {
        self.delete(&["vhosts", name]).await
    }

    /// Makes a user without tags, or changes the password of one.
    ///
    /// # Errors
    ///
    /// As [`create_vhost`](Self::create_vhost).
    pub async fn create_user(&self, name: &str, password: &str) -> Result<()> {
        self.put(
            &["users", name],
            json!({ "password": password, "tags": "" }),
        )
        .await
    }

    /// Deletes a user, if there is one.
    ///
    /// # Errors
    ///
    /// As [`create_vhost`](Self::create_vhost).
    pub async fn delete_user(&self, name: &str) -> Result<()> {
        self.delete(&["users", name]).await
    }

    /// Sets what a user may do in this virtual host; each is a regular expression over names.
    ///
    /// # Errors
    ///
    /// As [`create_vhost`](Self::create_vhost).
    pub async fn set_permissions(
        &self,
        user: &str,
        configure: &str,
        write: &str,
        read: &str,
    ) -> Result<()> {
        let body = json!({ "configure": configure, "write": write, "read": read });
        self.put(&["permissions", &self.vhost, user], body).await
    }

    /// Sets a policy on the queues whose name matches the regular expression `pattern`.
    ///
    /// # Errors
    ///
    /// As [`create_vhost`](Self::create_vhost).
    pub async fn set_policy(&self, name: &str, pattern: &str, definition: Value) -> Result<()> {
        let body = json!({ "pattern": pattern, "definition": definition, "apply-to": "queues" });
        self.put(&["policies", &self.vhost, name], body).await
    }

    /// Deletes a policy, if there is one.
    ///
    /// # Errors
    ///
    /// As [`create_vhost`](Self::create_vhost).
    pub async fn delete_policy(&self, name: &str) -> Result<()> {
        self.delete(&["policies", &self.vhost, name]).await
    }

    /// Imports definitions (exchanges, queues, bindings) into the virtual host.
    ///
    /// # Errors
    ///
    /// As [`create_vhost`](Self::create_vhost); refused when something exists and differs.
    pub async fn import_definitions(&self, definitions: Value) -> Result<()> {
        let path = ["definitions", &self.vhost];
        self.call("POST", &path, Some(definitions)).await.map(drop)
    }

    /// Declares a durable queue; `arguments` is an object, `{"x-queue-type": "quorum"}` say.
    ///
    /// # Errors
    ///
    /// As [`create_vhost`](Self::create_vhost); refused when the queue exists and differs.
    pub async fn declare_queue(&self, name: &str, arguments: Value) -> Result<()> {
        let body = json!({ "durable": true, "auto_delete": false, "arguments": arguments });
        self.put(&["queues", &self.vhost, name], body).await
    }

    /// Declares a durable exchange.
    ///
    /// # Errors
    ///
    /// As [`create_vhost`](Self::create_vhost); refused when the exchange exists and differs.
    pub async fn declare_exchange(&self, name: &str, kind: &str) -> Result<()> {
        let body = json!({ "type": kind, "durable": true });
        self.put(&["exchanges", &self.vhost, name], body).await
    }

    /// Binds a queue to an exchange.
    ///
    /// # Errors
    ///
    /// As [`create_vhost`](Self::create_vhost).
    pub async fn bind_queue(&self, exchange: &str, queue: &str, routing_key: &str) -> Result<()> {
        let path = ["bindings", &self.vhost, "e", exchange, "q", queue];
        self.call("POST", &path, Some(json!({ "routing_key": routing_key })))
            .await
            .map(drop)
    }

    /// All queues of this virtual host, by name.
    ///
    /// # Errors
    ///
    /// As [`create_vhost`](Self::create_vhost).
    pub async fn queues(&self) -> Result<Vec<Queue>> {
        let mut queues: Vec<Queue> = self.get(&["queues", &self.vhost]).await?;
        queues.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(queues)
    }

    /// One queue; `None` if there is none of that name.
    ///
    /// # Errors
    ///
    /// As [`create_vhost`](Self::create_vhost).
    pub async fn queue(&self, name: &str) -> Result<Option<Queue>> {
        match self.get(&["queues", &self.vhost, name]).await {
            Err(ManagementError::Refused { status: 404, .. }) => Ok(None),
            other => other.map(Some),
        }
    }

    /// Waits until `condition` holds for a queue, for at most `limit`, and returns the queue.
    ///
    /// # Errors
    ///
    /// [`ManagementError::Late`] with what was seen last; a server that is down in between is
    /// waited for.
    pub async fn wait_for_queue(
        &self,
        name: &str,
        condition: impl Fn(&Queue) -> bool,
        limit: Duration,
    ) -> Result<Queue> {
        let end = Instant::now() + limit;
        loop {
            let seen = self.queue(name).await;
            if let Ok(Some(queue)) = &seen
                && condition(queue)
            {
                return Ok(queue.clone());
            }
            if Instant::now() >= end {
                let what = format!("queue '{name}' did not come to that state within {limit:?}");
                let last = match seen {
                    Ok(Some(queue)) => format!("{queue:?}"),
                    Ok(None) => "no such queue".to_owned(),
                    Err(error) => error.to_string(),
                };
                return Err(ManagementError::Late { what, last });
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The bindings of a queue, that of the default exchange included.
    ///
    /// # Errors
    ///
    /// As [`create_vhost`](Self::create_vhost).
    pub async fn bindings(&self, queue: &str) -> Result<Vec<Binding>> {
        self.get(&["queues", &self.vhost, queue, "bindings"]).await
    }

    /// All exchanges of this virtual host, those that the server makes included.
    ///
    /// # Errors
    ///
    /// As [`create_vhost`](Self::create_vhost).
    pub async fn exchanges(&self) -> Result<Vec<Exchange>> {
        self.get(&["exchanges", &self.vhost]).await
    }

    /// The consumers of a queue.
    ///
    /// # Errors
    ///
    /// As [`create_vhost`](Self::create_vhost).
    pub async fn consumers(&self, queue: &str) -> Result<Vec<Consumer>> {
        let consumers: Vec<Value> = self.get(&["consumers", &self.vhost]).await?;
        let of_queue = consumers
            .into_iter()
            .filter(|consumer| consumer["queue"]["name"] == queue);
        of_queue
            .map(serde_json::from_value)
            .collect::<std::result::Result<_, _>>()
            .map_err(|error| malformed("GET consumers", &error))
    }

    /// Deletes a queue with its messages, if there is one.
    ///
    /// # Errors
    ///
    /// As [`create_vhost`](Self::create_vhost).
    pub async fn delete_queue(&self, name: &str) -> Result<()> {
        self.delete(&["queues", &self.vhost, name]).await
    }

    /// Drops the messages of a queue that are ready.
    ///
    /// # Errors
    ///
    /// As [`create_vhost`](Self::create_vhost).
    pub async fn purge_queue(&self, name: &str) -> Result<()> {
        self.delete(&["queues", &self.vhost, name, "contents"])
            .await
    }

    /// The names of the connections to this virtual host.
    ///
    /// # Errors
    ///
    /// As [`create_vhost`](Self::create_vhost).
    pub async fn connections(&self) -> Result<Vec<String>> {
        let connections: Vec<Value> = self.get(&["vhosts", &self.vhost, "connections"]).await?;
        let name = |connection: &Value| connection["name"].as_str().map(str::to_owned);
        Ok(connections.iter().filter_map(name).collect())
    }

    /// Has the server close every connection to this virtual host; returns how many there were.
    ///
    /// # Errors
    ///
    /// As [`create_vhost`](Self::create_vhost).
    pub async fn close_connections(&self) -> Result<usize> {
        let connections = self.connections().await?;
        self.close(&connections).await?;
        Ok(connections.len())
    }

    /// Has the server close these connections, which it knows by their names.
    ///
    /// # Errors
    ///
    /// As [`create_vhost`](Self::create_vhost).
    pub async fn close(&self, connections: &[String]) -> Result<()> {
        // All at once: one that is going down by itself meanwhile is slow to answer.
        let closing = connections
            .iter()
            .map(|name| async move { self.delete(&["connections", name]).await });
        try_join_all(closing).await.map(drop)
    }

    /// Gets any other resource, `["overview"]` say.
    ///
    /// # Errors
    ///
    /// As [`create_vhost`](Self::create_vhost).
    pub async fn get<T: DeserializeOwned>(&self, path: &[&str]) -> Result<T> {
        let body = self.call("GET", path, None).await?;
        serde_json::from_slice(&body)
            .map_err(|error| malformed(&format!("GET {}", path.join("/")), &error))
    }

    async fn put(&self, path: &[&str], body: Value) -> Result<()> {
        self.call("PUT", path, Some(body)).await.map(drop)
    }

    /// What is not there need not be deleted.
    async fn delete(&self, path: &[&str]) -> Result<()> {
        match self.call("DELETE", path, None).await {
            Ok(_) | Err(ManagementError::Refused { status: 404, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn call(&self, method: &str, path: &[&str], body: Option<Value>) -> Result<Vec<u8>> {
        let request = || format!("{method} {}", path.join("/"));
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let answer = self
            .endpoint
            .call(method, path, &body)
            .await
            .map_err(|source| ManagementError::Io {
                request: request(),
                source,
            })?;
        if (200..300).contains(&answer.status) {
            return Ok(answer.body);
        }
        Err(ManagementError::Refused {
            request: request(),
            status: answer.status,
            reason: String::from_utf8_lossy(&answer.body).into_owned(),
        })
    }
}

impl fmt::Debug for Management {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Management")
            .field("address", &self.endpoint.address)
            .field("vhost", &self.vhost)
            .finish_non_exhaustive()
    }
}

fn malformed(request: &str, error: &serde_json::Error) -> ManagementError {
    ManagementError::Malformed {
        request: request.to_owned(),
        reason: error.to_string(),
    }
}
