//! The connections that the subscriptions share: one that publishes and one that settles, so that a
//! large body on its way out holds back no acknowledgement. Whoever blocks has its own.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::clock::Clock;
use crate::redis::{Connection, Failure, FailureKind, Opening, Pushes, open};

use super::core::Core;

/// How often a connection is asked whether it still answers.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// The shared connections while they are up.
pub(super) struct Live {
    pub(super) publish: Connection,
    pub(super) settle: Connection,
    /// How far the server's clock is ahead of ours, in milliseconds.
    ahead: i64,
}

impl Live {
    pub(super) async fn connect(core: &Core) -> Result<Self, Failure> {
        let publish = connection(core, "publish", Duration::ZERO).await?;
        let settle = if core.settings.settles {
            connection(core, "settle", Duration::ZERO).await?
        } else {
            publish.clone()
        };
        let (seconds, micros): (i64, i64) = settle.query("the time", &redis::cmd("TIME")).await?;
        let server = seconds.saturating_mul(1_000).saturating_add(micros / 1_000);
        Ok(Self {
            publish,
            settle,
            ahead: server - millis(&*core.context.clock),
        })
    }

    pub(super) fn is_up(&self) -> bool {
        self.publish.is_up() && self.settle.is_up()
    }

    /// The server's wall time, in milliseconds since the Unix epoch.
    pub(super) fn now(&self, core: &Core) -> i64 {
        millis(&*core.context.clock).saturating_add(self.ahead)
    }

    /// Waits until one of the connections is gone or does not answer, and says why.
    pub(super) async fn lost(&self) -> String {
        tokio::select! {
            why = gone(&self.publish) => why,
            why = gone(&self.settle) => why,
        }
    }
}

/// Waits until a connection is gone or does not answer, and says why.
pub(super) async fn gone(connection: &Connection) -> String {
    tokio::select! {
        () = connection.lost() => "the connection was closed".to_owned(),
        why = silent(connection) => why,
    }
}

fn millis(clock: &dyn Clock) -> i64 {
    i64::try_from(clock.unix_millis()).unwrap_or(i64::MAX)
}

/// Keeps a connection in use that has nothing to ask for a while: a server may end idle ones. That it
/// is gone shows when it is needed again, and until then nothing has to be given up.
pub(super) async fn kept(connection: &Connection) -> Infallible {
    let ping = redis::cmd("PING");
    loop {
        sleep(HEARTBEAT).await;
        let _ = connection.raw("a heartbeat", &ping).await;
    }
}

async fn silent(connection: &Connection) -> String {
    let ping = redis::cmd("PING");
    loop {
        sleep(HEARTBEAT).await;
        // Any answer will do, a refusal too.
        if let Err(failure) = connection.raw("a heartbeat", &ping).await
            && matches!(
                failure.kind,
                FailureKind::Timeout | FailureKind::ConnectionLost
            )
        {
            return format!("{}: {failure}", connection.place().host);
        }
    }
}

/// A connection whose answers may take `blocks` longer than usual.
pub(super) async fn connection(
    core: &Core,
    role: &str,
    blocks: Duration,
) -> Result<Connection, Failure> {
    opened(core, role, blocks, None).await
}

/// A connection over which the server sends by itself.
pub(super) async fn pushed(core: &Core, role: &str, pushes: Pushes) -> Result<Connection, Failure> {
    opened(core, role, Duration::ZERO, Some(pushes)).await
}

async fn opened(
    core: &Core,
    role: &str,
    blocks: Duration,
    pushes: Option<Pushes>,
) -> Result<Connection, Failure> {
    let settings = &core.settings.server;
    let target = settings.target()?;
    let name = core.client_name(role);
    let opening = Opening {
        name: &name,
        response_timeout: settings.command_timeout + blocks,
        pushes,
    };
    let limit = settings.connect_timeout;
    match timeout(limit, open(&target, opening)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Failure::new(
            FailureKind::Unreachable,
            format!("{} did not answer within {limit:?}", target.place.host),
        )),
    }
}

/// Waits until the link no longer leads over `live`.
pub(super) async fn replaced(core: &Core, live: &Arc<Live>) {
    use super::core::Link;
    let mut link = core.link.subscribe();
    let other = |link: &Link| !matches!(link, Link::Up(now) if Arc::ptr_eq(now, live));
    // The sender lives in the core.
    let _ = link.wait_for(other).await;
}
