//! One pair of connections: what publishes and what consumes, so that a blocked publisher never
//! holds back an acknowledgement.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use lapin::tcp::AMQPUriTcpExt;
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{Connection, ConnectionProperties, Error, ErrorKind};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tracing::info;

use crate::messaging::{BrokerError, BrokerErrorKind};

use super::core::Core;
use super::errors;
use super::hello::Server;
use super::hosts;
use super::lane::Lane;
use super::settings::Target;

/// How long one operation on an open connection may take.
pub(super) const OPERATION_TIMEOUT: Duration = Duration::from_secs(10);

const REPLY_SUCCESS: u16 = 200;

/// A pair of connections that is up.
pub(super) struct Live {
    /// The server, as `host:port`.
    pub(super) host: String,
    pub(super) publish: Arc<Connection>,
    pub(super) consume: Arc<Connection>,
    /// Channels that publish to the default exchange and the configured one.
    lanes: Vec<Lane>,
    /// The channel that publishes to exchanges of others: naming a missing one closes the channel,
    /// and with it everything that is on its way there.
    foreign: Lane,
    /// The queues that were made on first use over this connection, and when.
    pub(super) declared: Mutex<HashMap<String, Instant>>,
}

/// A failed attempt to connect.
pub(super) struct ConnectFailure {
    pub(super) error: BrokerError,
    /// Nothing listened there: asking again soon costs next to nothing.
    pub(super) refused: bool,
}

impl ConnectFailure {
    /// Of all servers, none of which could be reached.
    fn of_all(broker: &Arc<str>, mut all: Vec<Self>) -> Self {
        if let [_] = &*all {
            return all.remove(0);
        }
        use BrokerErrorKind::{Authentication, NotFound, Permission};
        // What one server of a cluster says of a user or a virtual host holds for all of them; what
        // else is wrong with it does not.
        let of_cluster = [Authentication, NotFound, Permission];
        let decides = all
            .iter()
            .find(|one| of_cluster.contains(&one.error.kind()))
            .or_else(|| all.iter().find(|one| one.error.is_retryable()))
            .or(all.first());
        let kind = decides.map_or(BrokerErrorKind::Unreachable, |one| one.error.kind());
        let texts: Vec<&str> = all.iter().map(|one| one.error.message()).collect();
        Self {
            error: BrokerError::new(kind, broker, texts.join("; ")),
            refused: all.iter().all(|one| one.refused),
        }
    }
}

impl Live {
    /// Connects to one of the servers; the one that was `lost` is tried last.
    pub(super) async fn connect(core: &Core, lost: Option<&str>) -> Result<Self, ConnectFailure> {
        let name = &core.context.name;
        let targets = core.settings.targets();
        let mut targets = targets.map_err(|(kind, message)| {
            let error = BrokerError::new(kind, name, message);
            ConnectFailure {
                error,
                refused: false,
            }
        })?;
        hosts::order(&mut targets, lost, &core.context.rng);
        let mut failures = Vec::new();
        for target in &targets {
            match Self::connect_to(core, target).await {
                Ok(live) => return Ok(live),
                Err(failure) => failures.push(failure),
            }
        }
        // The same failures are told in the same words, whatever the order was.
        failures.sort_by(|one, other| one.error.message().cmp(other.error.message()));
        Err(ConnectFailure::of_all(name, failures))
    }

    async fn connect_to(core: &Core, target: &Target) -> Result<Self, ConnectFailure> {
        let publish = open(core, "publish", target).await?;
        let consume = open(core, "consume", target).await?;
        let (publish, consume) = (Arc::new(publish), Arc::new(consume));
        let lanes = (0..core.settings.pool_size)
            .map(|_| Lane::new(&publish, &core.context.rng))
            .collect();
        Ok(Self {
            host: target.place.host.clone(),
            lanes,
            foreign: Lane::new(&publish, &core.context.rng),
            publish,
            consume,
            declared: Mutex::default(),
        })
    }

    pub(super) fn is_up(&self) -> bool {
        self.publish.status().connected() && self.consume.status().connected()
    }

    /// The lane for a message: the same one for the same key, so that its messages stay in order.
    pub(super) fn lane(&self, foreign: bool, key: u64) -> &Lane {
        if foreign {
            return &self.foreign;
        }
        let count = u64::try_from(self.lanes.len()).unwrap_or(1).max(1);
        let at = usize::try_from(key % count).unwrap_or(0);
        &self.lanes[at]
    }

    /// Says goodbye to the server; what is lost already is left alone.
    pub(super) async fn close(&self, limit: Duration) {
        let close = async |connection: &Connection| {
            if connection.status().connected() {
                let goodbye = connection.close(REPLY_SUCCESS, "OK".into());
                // Whether it answers or not, the connection is given up.
                let _ = timeout(limit, goodbye).await;
            }
        };
        tokio::join!(close(&self.consume), close(&self.publish));
    }
}

async fn open(core: &Core, role: &str, target: &Target) -> Result<Connection, ConnectFailure> {
    let context = &core.context;
    let name = format!("{}/{}/{role}", context.service, context.instance);
    let properties = ConnectionProperties::default()
        .with_connection_name(name.into())
        .with_client_property("product".into(), "interline".into())
        .with_client_property("version".into(), env!("CARGO_PKG_VERSION").into());
    let failed = |error: &Error| ConnectFailure {
        error: errors::connecting(&context.name, &target.place, error),
        refused: matches!(error.kind(), ErrorKind::IOError(io) if io.kind() == io::ErrorKind::ConnectionRefused),
    };
    let runtime = lapin::runtime::default_runtime().map_err(|error| failed(&error))?;
    #[cfg(feature = "tls")]
    let tls = target.tls.clone();
    // The handshake is part of the client crate's own thread, which a caller that gave up does not end.
    let limit = core.settings.connect_timeout;
    let stream = async move |uri: AMQPUri, runtime| {
        let opening = async {
            let plain = AMQPUri {
                scheme: AMQPScheme::AMQP,
                ..uri.clone()
            };
            let stream = plain.connect_async(&runtime).await?;
            #[cfg(feature = "tls")]
            if let Some(tls) = &tls {
                return stream.into_rustls(tls, &uri.authority.host).await;
            }
            Ok::<_, io::Error>(stream)
        };
        match timeout(limit, opening).await {
            Ok(stream) => stream.map_err(Error::from),
            Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
        }
    };
    if core.server.get().is_none() {
        let asking = async {
            let mut stream = stream(target.uri.clone(), runtime.clone()).await?;
            Ok::<_, Error>(Server::ask(&mut stream).await?)
        };
        match timeout(limit, asking).await {
            Ok(Ok(Some(server))) => {
                if let Some(why) = server.too_old() {
                    let text = format!("{} {why}", target.place.host);
                    let kind = BrokerErrorKind::Unsupported;
                    return Err(ConnectFailure {
                        error: BrokerError::new(kind, &context.name, text),
                        refused: false,
                    });
                }
                info!(broker = %context.name, "the server is {server}");
                core.server.get_or_init(|| server);
            }
            // Whatever is strange about it shows again below, where it is told.
            Ok(Ok(None)) => {}
            Ok(Err(error)) => return Err(failed(&error)),
            Err(_) => return Err(failed(&io::Error::from(io::ErrorKind::TimedOut).into())),
        }
    }
    let attempt = Connection::connector(target.uri.clone(), runtime, stream, properties);
    match timeout(core.settings.connect_timeout, attempt).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => Err(failed(&error)),
        Err(_) => Err(failed(&io::Error::from(io::ErrorKind::TimedOut).into())),
    }
}

/// Limits an operation on the server.
pub(super) async fn limited<T>(
    broker: &Arc<str>,
    what: &str,
    operation: impl Future<Output = lapin::Result<T>>,
) -> Result<T, BrokerError> {
    match timeout(OPERATION_TIMEOUT, operation).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(errors::operation(broker, what, &error)),
        Err(_) => Err(BrokerError::new(
            BrokerErrorKind::Timeout,
            broker,
            format!("{what}: the server did not answer within {OPERATION_TIMEOUT:?}"),
        )),
    }
}
