//! Which publish a returned message belongs to.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use lapin::message::BasicReturnMessage;
use lapin::types::ShortString;
use lapin::{Confirmation, Error};

use super::board::Seat;

/// What a returned message is recognised by: a hash, with keys of the lane's own, of exchange, routing
/// key and message id. Two publishes that share all three share their fate.
pub(super) type Identity = u64;

/// The keys of one lane's identities.
#[derive(Clone, Default)]
pub(super) struct Keys(RandomState);

impl Keys {
    pub(super) fn identity(
        &self,
        exchange: &ShortString,
        routing_key: &ShortString,
        message_id: Option<&ShortString>,
    ) -> Identity {
        self.0.hash_one((exchange, routing_key, message_id))
    }

    /// What the client crate tells of a publish, without the returned message itself.
    pub(super) fn resolved(&self, result: lapin::Result<Confirmation>) -> Resolved {
        let identity = |message: BasicReturnMessage| {
            let message_id = message.properties.message_id().as_ref();
            self.identity(&message.exchange, &message.routing_key, message_id)
        };
        match result {
            Ok(Confirmation::NotRequested) => Resolved::Acked(None),
            Ok(Confirmation::Ack(message)) => Resolved::Acked(message.map(identity)),
            Ok(Confirmation::Nack(message)) => Resolved::Nacked(message.map(identity)),
            Err(error) => Resolved::Lost(error),
        }
    }
}

/// How a publish was resolved, with the identity of a returned message that came along: its own or
/// another's.
#[derive(Debug)]
pub(super) enum Resolved {
    Acked(Option<Identity>),
    Nacked(Option<Identity>),
    /// The channel ended first.
    Lost(Error),
}

/// What became of a publish.
#[derive(Debug)]
pub(in crate::messaging::rabbitmq) enum Verdict {
    Confirmed,
    Unroutable,
    Nacked,
    /// The channel ended first; the server may have the message.
    Lost(Error),
}

/// Who waits for a verdict.
pub(super) struct Waiting {
    pub(super) seat: Arc<Seat>,
    pub(super) identity: Identity,
}

/// Matches returned messages to the publishes they belong to.
///
/// The client crate keeps returned messages in order of arrival and gives the first to whichever
/// publish is acknowledged next. A message's return arrives before its own acknowledgement, so once
/// a publish is acknowledged, its return was either given to something resolved before or still
/// waits. It no longer waits once something later was acknowledged without one, or nothing is open.
#[derive(Default)]
pub(super) struct Ledger {
    /// Acknowledged in this batch, with no returned message left over.
    clear: Vec<Waiting>,
    /// Acknowledged in this batch, with a returned message that may be another's.
    unclear: Vec<Waiting>,
    /// Unclear ones of earlier batches.
    held: Vec<Waiting>,
    returned: Vec<Identity>,
    /// What ended the channel; then a returned message may be lost with it.
    broken: Option<Error>,
}

impl Ledger {
    pub(super) fn add(&mut self, waiting: Waiting, resolved: Resolved) {
        match resolved {
            Resolved::Acked(None) => self.clear.push(waiting),
            Resolved::Acked(Some(returned)) => {
                self.returned.push(returned);
                self.unclear.push(waiting);
            }
            Resolved::Nacked(returned) => {
                self.returned.extend(returned);
                waiting.seat.answer(Verdict::Nacked);
            }
            Resolved::Lost(error) => {
                self.broken = Some(error.clone());
                waiting.seat.answer(Verdict::Lost(error));
            }
        }
    }

    /// Whether some wait for others to be acknowledged.
    pub(super) fn holds_some(&self) -> bool {
        !self.held.is_empty()
    }

    /// Answers what can be answered after a batch; `idle` if nothing is open any more.
    pub(super) fn close(&mut self, idle: bool) {
        if self.returned.is_empty() && self.held.is_empty() && self.unclear.is_empty() {
            for waiting in self.clear.drain(..) {
                waiting.seat.answer(Verdict::Confirmed);
            }
            return;
        }
        // Everything in this batch was acknowledged after everything in earlier ones.
        let idle = idle && self.broken.is_none();
        let decided = idle || !self.clear.is_empty();
        for waiting in std::mem::take(&mut self.held) {
            self.decide(waiting, decided);
        }
        for waiting in std::mem::take(&mut self.clear) {
            self.decide(waiting, true);
        }
        for waiting in std::mem::take(&mut self.unclear) {
            self.decide(waiting, idle);
        }
        if idle {
            self.returned.clear();
        }
    }

    fn decide(&mut self, waiting: Waiting, all_seen: bool) {
        let at = self
            .returned
            .iter()
            .position(|returned| *returned == waiting.identity);
        match at {
            Some(at) => {
                self.returned.swap_remove(at);
                waiting.seat.answer(Verdict::Unroutable);
            }
            None if all_seen => waiting.seat.answer(Verdict::Confirmed),
            None => match &self.broken {
                Some(error) => waiting.seat.answer(Verdict::Lost(error.clone())),
                None => self.held.push(waiting),
            },
        }
    }
}
