//! The lease of an ordered subscription: one reader at a time across all instances.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::messaging::ConsumerState;
use crate::redis::Failure;

use super::consumer::Wish;
use super::core::Core;
use super::epoch::Session;
use super::scripts;

/// How often whoever stands by looks whether the lease is free.
const LOOK: Duration = Duration::from_millis(500);

/// Takes the lease, standing by as long as somebody else has it: when the request was sent that took
/// it, or `None` to stop.
pub(super) async fn take(
    core: &Core,
    session: &Session,
    wish: &mut watch::Receiver<Wish>,
    state: &watch::Sender<ConsumerState>,
) -> Result<Option<Instant>, Failure> {
    loop {
        let now = *wish.borrow_and_update();
        match now {
            Wish::Stop => return Ok(None),
            Wish::Pause => {
                state.send_replace(ConsumerState::Paused);
                // Whoever wants it to go on says so; the sender outlives the task.
                let _ = wish.changed().await;
                continue;
            }
            Wish::Run | Wish::Trickle(_) => {}
        }
        let asked = Instant::now();
        let (held, rest) = ask(core, session).await?;
        if held {
            return Ok(Some(asked));
        }
        // It consumes as far as anybody can tell: it would, if the reader went away.
        state.send_replace(ConsumerState::Running);
        let wait = Duration::from_millis(u64::try_from(rest).unwrap_or(0) + 10).min(LOOK);
        tokio::select! {
            () = sleep(wait) => {}
            _ = wish.changed() => {}
        }
    }
}

/// Keeps the lease; returns when it is lost for certain.
pub(super) async fn keep(core: &Core, epoch: &super::epoch::Epoch) -> Result<(), Failure> {
    let lasts = core.settings.lease;
    loop {
        sleep(lasts / 3).await;
        let asked = Instant::now();
        let (held, _) = ask(core, &epoch.session).await?;
        if !held {
            return Ok(());
        }
        epoch.keep_lease(asked, lasts);
    }
}

/// Whether the lease is held now; otherwise for how many milliseconds it is somebody else's.
async fn ask(core: &Core, session: &Session) -> Result<(bool, i64), Failure> {
    let names = &session.names;
    let lasts = u64::try_from(core.settings.lease.as_millis()).unwrap_or(u64::MAX);
    let mut script = scripts::LEASE.key(&names.lease);
    script.key(&names.state).arg(session.token()).arg(lasts);
    let (held, number): (i64, i64) = session.live.settle.run(&session.what(), &script).await?;
    Ok((held == 1, number))
}
