//! Messages that are published at a later time.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::handling::{PublishError, PublishErrorKind};
use crate::message::{MessageId, Outgoing};

use super::broker::{Link, SCHEDULED_MAX};
use super::events::EventKind;
use super::state::{State, Timer};

impl State {
    /// Keeps a message until it is due, for a connection that is up. One of the same identity that
    /// waits already is replaced: it is the same message, sent again.
    pub(super) fn schedule(
        &mut self,
        link: &Arc<Link>,
        outgoing: Outgoing,
        due: SystemTime,
    ) -> Result<(), PublishError> {
        use PublishErrorKind::{Nacked, Unsupported};
        self.admit(link, &outgoing)?;
        if self.scheduled.len() >= self.options.max_messages {
            let max = self.options.max_messages;
            let why = format!("{max} messages are scheduled already (`max_messages`)");
            return Err(self.refuse(link, Nacked, &why, outgoing));
        }
        let wait = due
            .duration_since(self.clock.now())
            .unwrap_or(Duration::ZERO);
        if wait > SCHEDULED_MAX {
            let why = "no message is held for longer than 100 years";
            return Err(self.refuse(link, Unsupported, why, outgoing));
        }
        let when = Instant::now() + wait;
        self.cancel_scheduled(&outgoing.id);
        self.events.record(|| EventKind::Scheduled {
            instance: Arc::clone(&link.instance),
            topic: (&*outgoing.topic).into(),
            id: outgoing.id.clone(),
            wait,
        });
        let id = outgoing.id.clone();
        let timer = Timer::Publish(Arc::clone(link), Box::new(outgoing));
        let due = self.start_timer(when, timer);
        self.scheduled.insert(id, due);
        Ok(())
    }

    /// Takes a scheduled message back; whether it was there.
    pub(super) fn cancel_scheduled(&mut self, id: &MessageId) -> bool {
        let due = self.scheduled.remove(id);
        due.is_some_and(|due| self.timers.remove(&due).is_some())
    }

    /// A scheduled message's time has come.
    pub(super) fn publish_scheduled(&mut self, link: &Link, mut outgoing: Outgoing) {
        self.scheduled.remove(&outgoing.id);
        outgoing.due = None;
        // Nobody waits for an answer any more; what nobody takes is told in the events.
        if self.admit(link, &outgoing).is_ok() {
            self.distribute(link, outgoing, true);
        }
    }
}
