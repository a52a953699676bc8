//! The one task that keeps the pair of connections up: it connects, watches, and connects again.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt, future};
use lapin::{Connection, Event};
use tokio::sync::{oneshot, watch};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::{info, warn};

use crate::messaging::{BrokerError, Connected};

use super::connection::Live;
use super::core::{BACKOFF_MAX, Core, Link};
use super::declare;
use super::errors::plain;

/// The longest wait while nothing listens at the server's port: asking is cheap, and consumers should
/// be back soon after the port opens.
const REFUSED_BACKOFF_MAX: Duration = Duration::from_millis(1_500);
/// How often the connections are looked at, should an event be missing.
const LOOK: Duration = Duration::from_millis(500);
const CLOSE_LOST: Duration = Duration::from_secs(1);

/// Runs until the link is closed, or the first attempt shows that trying again cannot help.
pub(super) async fn run(core: Arc<Core>, first: oneshot::Sender<Result<Connected, BrokerError>>) {
    let mut first = Some(first);
    let mut link = core.link.subscribe();
    let mut told: Option<String> = None;
    let (mut attempt, mut made) = (0_u32, 0_u64);
    let mut last: Option<String> = None;
    loop {
        let connecting = tokio::select! {
            () = closed(&mut link) => return,
            outcome = Live::connect(&core, last.as_deref()) => outcome,
        };
        let failure = match connecting {
            Ok(live) => {
                let live = Arc::new(live);
                declare::shared(&core, &live).await;
                if !set(&core, Link::Up(Arc::clone(&live))) {
                    live.close(CLOSE_LOST).await;
                    return;
                }
                (attempt, told) = (0, None);
                core.set_error(None);
                core.up.record(1.0);
                if made > 0 {
                    core.reconnects.record(1.0);
                }
                made += 1;
                last = Some(live.host.clone());
                info!(broker = %core.context.name, server = live.host, "connected");
                if let Some(first) = first.take() {
                    // Whoever asked may have given up waiting; the connection stays.
                    let _ = first.send(Ok(Connected::Yes));
                }
                let lost = tokio::select! {
                    () = closed(&mut link) => return,
                    reason = lost(&core, &live) => reason,
                };
                core.up.record(0.0);
                core.set_blocked(false);
                core.set_error(Some(lost.clone()));
                if !set(&core, Link::Down) {
                    return;
                }
                warn!(broker = %core.context.name, reason = lost, "connection lost, connecting again");
                tokio::spawn(async move { live.close(CLOSE_LOST).await });
                continue;
            }
            Err(failure) => failure,
        };
        let text = failure.error.to_string();
        let terminal = !failure.error.is_retryable();
        core.set_error(Some(text.clone()));
        let state = if terminal {
            Link::Failed(text.as_str().into())
        } else {
            Link::Down
        };
        if !set(&core, state) {
            return;
        }
        if let Some(first) = first.take() {
            if terminal && !core.settings.retry_terminal {
                let _ = first.send(Err(failure.error));
                return;
            }
            let _ = first.send(Ok(Connected::Retrying));
        }
        if told.as_ref() != Some(&text) {
            warn!(broker = %core.context.name, "{text}; trying again");
            told = Some(text);
        }
        let wait = match (failure.refused, terminal) {
            (true, _) => core.backoff(attempt, REFUSED_BACKOFF_MAX),
            // Somebody has to act first; that takes more than a moment.
            (false, true) => core.backoff(u32::MAX, BACKOFF_MAX).max(BACKOFF_MAX / 2),
            (false, false) => core.backoff(attempt, BACKOFF_MAX),
        };
        attempt = attempt.saturating_add(1);
        tokio::select! {
            () = closed(&mut link) => return,
            () = sleep(wait) => {}
        }
    }
}

/// Changes the link unless it was closed for good.
fn set(core: &Core, state: Link) -> bool {
    let mut open = true;
    core.link.send_modify(|link| {
        open = !matches!(link, Link::Closed);
        if open {
            *link = state;
        }
    });
    open
}

async fn closed(link: &mut watch::Receiver<Link>) {
    // The sender lives in the core, which this task holds.
    let _ = link.wait_for(|link| matches!(link, Link::Closed)).await;
}

/// Waits until one of the two connections is gone, and says why.
async fn lost(core: &Core, live: &Live) -> String {
    let mut publish = Box::pin(live.publish.events_listener());
    let mut consume = Box::pin(live.consume.events_listener());
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut reason = None;
    loop {
        tokio::select! {
            event = next(&mut publish) => match event {
                Event::ConnectionBlocked(why) => {
                    core.set_blocked(true);
                    warn!(broker = %core.context.name, reason = why, "the server takes no publishes at the moment");
                }
                Event::ConnectionUnblocked => {
                    core.set_blocked(false);
                    info!(broker = %core.context.name, "the server takes publishes again");
                }
                Event::Error(error) => reason = Some(plain(&error.to_string())),
                _ => {}
            },
            event = next(&mut consume) => {
                if let Event::Error(error) = event {
                    reason = Some(plain(&error.to_string()));
                }
            }
            _ = look.tick() => {}
        }
        // An error of one channel is reported here too; only the connection counts.
        if !live.is_up() {
            return reason.unwrap_or_else(|| gone(&live.publish, &live.consume));
        }
    }
}

async fn next(events: &mut (impl Stream<Item = Event> + Unpin)) -> Event {
    match events.next().await {
        Some(event) => event,
        None => future::pending().await,
    }
}

fn gone(publish: &Connection, consume: &Connection) -> String {
    let roles = [("publish", publish), ("consume", consume)];
    let lost = roles
        .into_iter()
        .find(|(_, connection)| !connection.status().connected());
    let role = lost.map_or("a", |(role, _)| role);
    format!("the {role} connection was closed")
}
