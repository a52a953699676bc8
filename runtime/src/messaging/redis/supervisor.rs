//! The one task that keeps the shared connections up: it connects, watches, and connects again.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::sleep;
use tracing::{info, warn};

use crate::messaging::{BrokerError, BrokerErrorKind, Connected};

use super::core::{BACKOFF_MAX, Core, Link};
use super::errors::broker_error;
use super::live::Live;

/// The longest wait while nothing listens at the server's port: asking is cheap, and consumers should
/// be back soon after the port opens.
const REFUSED_BACKOFF_MAX: Duration = Duration::from_millis(1_500);
/// The wait after a loss: a server that takes connections only to close them is not hammered.
const AFTER_LOSS: Duration = Duration::from_millis(100);

/// Begins to supervise, and waits for the outcome of the first attempt.
pub(super) async fn connect(core: &Arc<Core>) -> Result<Connected, BrokerError> {
    let begins = core.link.send_if_modified(|link| {
        let begins = matches!(link, Link::Idle);
        if begins {
            *link = Link::Down;
        }
        begins
    });
    let name = &core.context.name;
    let lost = |text| BrokerError::new(BrokerErrorKind::ConnectionLost, name, text);
    if !begins {
        return match &*core.link.borrow() {
            Link::Up(_) => Ok(Connected::Yes),
            Link::Closed => Err(lost("it was disconnected for good")),
            _ => Ok(Connected::Retrying),
        };
    }
    let (first, outcome) = oneshot::channel();
    tokio::spawn(run(Arc::clone(core), first));
    match outcome.await {
        Ok(outcome) => outcome,
        Err(_) => Err(lost("it was disconnected while it connected")),
    }
}

/// Runs until the link is closed, or the first attempt shows that trying again cannot help.
async fn run(core: Arc<Core>, first: oneshot::Sender<Result<Connected, BrokerError>>) {
    let mut first = Some(first);
    let mut link = core.link.subscribe();
    let mut told: Option<String> = None;
    let (mut attempt, mut made) = (0_u32, 0_u64);
    loop {
        let connecting = tokio::select! {
            () = closed(&mut link) => return,
            outcome = Live::connect(&core) => outcome,
        };
        let failure = match connecting {
            Ok(live) => {
                let live = Arc::new(live);
                core.listened.forget();
                if !set(&core, Link::Up(Arc::clone(&live))) {
                    return;
                }
                (attempt, told) = (0, None);
                core.set_error(None);
                core.up.record(1.0);
                if made > 0 {
                    core.reconnects.record(1.0);
                }
                made += 1;
                info!(broker = %core.context.name, "connected");
                if let Some(first) = first.take() {
                    // Whoever asked may have given up waiting; the connection stays.
                    let _ = first.send(Ok(Connected::Yes));
                }
                let lost = tokio::select! {
                    () = closed(&mut link) => return,
                    reason = live.lost() => reason,
                    never = core.publish_due(&live), if core.settings.settles => match never {},
                };
                core.up.record(0.0);
                core.set_error(Some(lost.clone()));
                if !set(&core, Link::Down) {
                    return;
                }
                warn!(broker = %core.context.name, reason = lost, "connection lost, connecting again");
                tokio::select! {
                    () = closed(&mut link) => return,
                    () = sleep(AFTER_LOSS) => continue,
                }
            }
            Err(failure) => failure,
        };
        let error = broker_error(&core.context.name, &failure);
        let text = error.to_string();
        let terminal = !error.is_retryable();
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
                let _ = first.send(Err(error));
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
