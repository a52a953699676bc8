//! Messages that are published at a later time: one sorted set of all, and their contents beside it.
//! Whoever is connected moves what is due.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;
use tokio::time::sleep;
use tracing::debug;

use crate::handling::{PublishError, PublishErrorKind};
use crate::message::{MessageId, Outgoing};
use crate::messaging::{BrokerError, Scheduling};

use super::core::Core;
use super::errors::broker_error;
use super::fields;
use super::live::Live;
use super::publish::{identified, publish_error};
use super::scripts;

/// How often due messages are looked for that another instance scheduled.
const LOOK: Duration = Duration::from_secs(1);
/// Most messages moved at once: the server does nothing else meanwhile.
const MOVED_TOGETHER: usize = 64;
/// The longest time that a message is held: a hundred years.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

pub(super) const SCHEDULING: Scheduling = Scheduling::new(Duration::from_millis(1), LONGEST)
    .durable()
    .cancel();

/// Tells the one who moves that something was scheduled.
#[derive(Default)]
pub(super) struct Scheduled(Notify);

impl Core {
    /// The sorted set of all scheduled messages, and the hash of their contents, in one slot.
    fn scheduled_keys(&self) -> (String, String) {
        let set = self.stream_of("{interline}:scheduled");
        let contents = format!("{set}:messages");
        (set, contents)
    }

    /// Holds a message until it is due. One of the same identity that waits already is replaced.
    pub(super) async fn schedule(
        &self,
        outgoing: Outgoing,
        due: SystemTime,
    ) -> Result<(), PublishError> {
        let wrong =
            |kind, message: String| PublishError::new(kind, outgoing.topic.clone(), message);
        let now = self.context.clock.now();
        let wait = due.duration_since(now).unwrap_or(Duration::ZERO);
        if wait > LONGEST {
            let message = "no message is held for longer than 100 years".to_owned();
            return Err(wrong(PublishErrorKind::Unsupported, message));
        }
        let Some(live) = self.wait_until_up().await else {
            return Err(self.not_up(&outgoing));
        };
        let stream = match &outgoing.redis.stream {
            Some(stream) => stream.to_string(),
            None => self.stream_of(&outgoing.topic),
        };
        let listened = outgoing.subscribers_optional || {
            let asked = self.has_group(&live, &stream).await;
            asked.map_err(|failure| publish_error(failure, &outgoing))?
        };
        if !listened {
            let message = format!("nobody listens: stream `{stream}` has no consumer group");
            let error = wrong(PublishErrorKind::Unroutable, message);
            return Err(error.with_outgoing(outgoing.clone()));
        }
        let (set, contents) = self.scheduled_keys();
        let mut script = scripts::SCHEDULE.key(set);
        script.key(contents).arg(outgoing.id.as_str());
        // A part of a millisecond counts as a whole one: a message is never early.
        let millis = wait.as_nanos().div_ceil(1_000_000);
        script.arg(u64::try_from(millis).unwrap_or(u64::MAX));
        script.arg(&stream);
        let headers = identified(&outgoing);
        let payload_field = &self.settings.payload_field;
        fields::write(payload_field, &outgoing.body, &headers, |part| {
            script.arg(part);
        });
        if let Some(ttl) = outgoing.ttl {
            let ttl = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
            script.arg(fields::TTL).arg(ttl);
        }
        let held = live
            .publish
            .run::<i64>("a scheduled message", &script)
            .await;
        held.map_err(|failure| publish_error(failure, &outgoing))?;
        self.scheduled.0.notify_one();
        Ok(())
    }

    /// Takes a scheduled message back; whether it was there.
    pub(super) async fn unschedule(&self, id: &MessageId) -> Result<bool, BrokerError> {
        let live = self.connected()?;
        let (set, contents) = self.scheduled_keys();
        let mut script = scripts::UNSCHEDULE.key(set);
        script.key(contents).arg(id.as_str());
        let taken = live
            .publish
            .run::<i64>("a scheduled message", &script)
            .await;
        let taken = taken.map_err(|failure| broker_error(&self.context.name, &failure))?;
        Ok(taken == 1)
    }

    /// Publishes what is due, as long as the connection is up.
    pub(super) async fn publish_due(&self, live: &Arc<Live>) -> Infallible {
        let (set, contents) = self.scheduled_keys();
        loop {
            let mut script = scripts::PUBLISH_DUE.key(&set);
            script.key(&contents).arg(MOVED_TOGETHER);
            let moved = live
                .settle
                .run::<(i64, i64)>("scheduled messages", &script)
                .await;
            let next = match moved {
                Ok((moved, 0)) if moved > 0 => continue,
                Ok((_, next)) => u64::try_from(next).map_or(LOOK, Duration::from_millis),
                Err(failure) => {
                    // A user may lack the permission, and then has scheduled nothing either.
                    debug!(broker = %self.context.name, "{failure}");
                    LOOK
                }
            };
            tokio::select! {
                () = self.scheduled.0.notified() => {}
                () = sleep(next.clamp(Duration::from_millis(1), LOOK)) => {}
            }
        }
    }
}
