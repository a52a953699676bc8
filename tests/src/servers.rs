//! The servers that the cases of one test program share.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use interline::messaging::{BrokerError, Connected, MessageBroker};
use interline::testing::{
    FaultProxy, KafkaNode, RabbitMqNode, RedisNode, ServerError, ServerFixture,
};
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep};

use crate::management::{Management, ManagementError};

/// A kind of server that a case may need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// Kafka, 4.0 or newer.
    Kafka,
    /// RabbitMQ, 3.10 or newer.
    RabbitMq,
    /// Redis, 6.2 or newer.
    Redis,
}

impl Server {
    /// Whether such a server can be had here.
    ///
    /// # Errors
    ///
    /// [`ServerError::Missing`], which says what to do about it.
    pub fn available(self) -> Result<(), ServerError> {
        match self {
            Self::Kafka => KafkaNode::available(),
            Self::RabbitMq => RabbitMqNode::available(),
            Self::Redis => RedisNode::available(),
        }
    }
}

/// Connects to a server that runs. That a first attempt fails, as it can on a busy machine, is no matter of
/// the cases that call this; the adapter goes on trying.
///
/// # Errors
///
/// As [`MessageBroker::connect`].
///
/// # Panics
///
/// Panics if there is no connection after 30 s.
pub async fn connect(broker: &dyn MessageBroker) -> Result<(), BrokerError> {
    let deadline = Instant::now() + Duration::from_secs(30);
    while broker.connect().await? != Connected::Yes {
        assert!(Instant::now() < deadline, "never connected");
        sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// The RabbitMQ server of this test program, started by the first case that asks and ended with the
/// program. Cases keep apart by using a [`Vhost`] each; one that kills or pauses the server starts
/// its own instead.
///
/// # Errors
///
/// As [`RabbitMqNode::start`].
pub async fn rabbitmq() -> Result<&'static ServerFixture, ServerError> {
    static SHARED: OnceCell<ServerFixture> = OnceCell::const_new();
    SHARED
        .get_or_try_init(|| ServerFixture::rabbitmq().start())
        .await
}

/// The Redis server of this test program, started by the first case that asks and ended with the
/// program. Cases keep apart by using a [`Database`](crate::redis::Database) each; one that kills or pauses the server starts
/// its own instead.
///
/// # Errors
///
/// As [`RedisNode::start`].
pub async fn redis() -> Result<&'static ServerFixture, ServerError> {
    static SHARED: OnceCell<ServerFixture> = OnceCell::const_new();
    SHARED
        .get_or_try_init(|| ServerFixture::redis().start())
        .await
}

/// A virtual host that belongs to one case.
#[derive(Debug)]
pub struct Vhost {
    /// Its name.
    pub name: String,
    /// Where to connect, this virtual host included.
    pub url: String,
    /// The management API, speaking of this virtual host.
    pub management: Management,
}

impl Vhost {
    /// Makes a virtual host with a new name on `server`, in which the user of its address may do
    /// everything.
    ///
    /// # Errors
    ///
    /// When the management API refuses.
    pub async fn create_on(server: &ServerFixture) -> Result<Self, ManagementError> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // An external server keeps what earlier runs left.
        let name = format!(
            "interline-{}-{}-{:08x}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed),
            fastrand::u32(..)
        );
        let management = Management::of(server)?;
        management.create_vhost(&name).await?;
        Ok(Self {
            url: server.url_with_vhost(&name),
            management: management.in_vhost(&name),
            name,
        })
    }

    /// Deletes the virtual host with everything in it.
    ///
    /// # Errors
    ///
    /// When the management API refuses.
    pub async fn delete(self) -> Result<(), ManagementError> {
        self.management.delete_vhost(&self.name).await
    }
}

/// The Kafka server of this test program, started by the first case that asks and ended with the
/// program. Cases keep apart by a prefix each; one that kills or pauses the server starts its own
/// instead.
///
/// # Errors
///
/// As [`KafkaNode::start`].
pub async fn kafka() -> Result<&'static ServerFixture, ServerError> {
    static SHARED: OnceCell<ServerFixture> = OnceCell::const_new();
    SHARED
        .get_or_try_init(|| ServerFixture::kafka().doors(16).start())
        .await
}

/// A prefix that no other case, nor an earlier run on an external cluster, has used.
pub fn unique_prefix() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!(
        "it{}-{}-{:06x}.",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed),
        fastrand::u32(..1 << 24)
    )
}

/// A proxy before the shared Kafka server that belongs to one case, with the address to connect to.
///
/// # Errors
///
/// When the server is not ours or has no door left, or the proxy cannot listen.
pub async fn kafka_proxy() -> std::io::Result<(FaultProxy, String)> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let server = kafka().await.map_err(std::io::Error::other)?;
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let door = usize::try_from(number)
        .ok()
        .and_then(|number| server.doors().get(number))
        .ok_or_else(|| std::io::Error::other("the Kafka server has no door left for a proxy"))?;
    let target = door.listener.to_string();
    let proxy = FaultProxy::start_at(door.advertised, target, fastrand::u64(..)).await?;
    let url = format!("kafka://{}", proxy.address());
    Ok((proxy, url))
}
