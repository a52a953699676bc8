//! The dead letters of each queue: list, re-drive, purge.

use std::future::ready;
use std::ops::Bound;
use std::sync::Arc;

use crate::handling::BoxFuture;
use crate::message::{Headers, Incoming};
use crate::messaging::{BrokerError, BrokerErrorKind, DeadLetterStore, Subscription};

use super::broker::Link;
use super::queue::Stored;
use super::topology::queue_name;

impl Link {
    /// Reads the first dead letter above the number `after`.
    fn dead_after(&self, name: &str, after: u64) -> Option<(u64, Arc<Stored>)> {
        let state = self.shared.lock();
        let queue = state.queues.get(state.queue_called(name)?)?;
        let mut rest = queue.dead.range((Bound::Excluded(after), Bound::Unbounded));
        let (number, message) = rest.next()?;
        Some((*number, Arc::clone(message)))
    }

    /// The number of the last dead letter, so that a walk ends although new ones come.
    fn dead_last(&self, name: &str) -> Result<u64, BrokerError> {
        let state = self.shared.lock();
        let queue = state.queue_called(name).and_then(|at| state.queues.get(at));
        let Some(queue) = queue else {
            let why = format!("there is no queue `{name}`");
            return Err(BrokerError::new(BrokerErrorKind::NotFound, &self.name, why));
        };
        Ok(queue.dead.last_key_value().map_or(0, |(last, _)| *last))
    }

    /// Looks at each dead letter once, oldest first, until `limit` were taken. The caller's code runs
    /// without the store's lock.
    fn walk(
        &self,
        subscription: &Subscription,
        limit: usize,
        mut take: impl FnMut(&Arc<str>, u64, &Arc<Stored>, Incoming) -> bool,
    ) -> Result<usize, BrokerError> {
        let name = queue_name(self.prefix.as_deref(), subscription);
        let last = self.dead_last(&name)?;
        let (mut at, mut taken) = (0, 0);
        while taken < limit
            && let Some((number, message)) = self.dead_after(&name, at)
            && number <= last
        {
            at = number;
            let incoming = message.incoming(&self.name, &name, false);
            taken += usize::from(take(&name, number, &message, incoming));
        }
        Ok(taken)
    }

    /// Takes a dead letter out, and puts `copy` into the queue in the same step. `false` if somebody
    /// else was faster.
    fn take_dead(&self, name: &str, number: u64, copy: Option<Arc<Stored>>) -> bool {
        self.shared.with(|state| {
            let Some(at) = state.queue_called(name) else {
                return false;
            };
            let queue = state.queues.get_mut(at).expect("a named queue is there");
            if queue.dead.remove(&number).is_none() {
                return false;
            }
            if let Some(copy) = copy {
                state.arrive(at, copy, 0, None);
                state.pump(at);
            }
            true
        })
    }
}

impl DeadLetterStore for Link {
    fn list<'a>(
        &'a self,
        subscription: &'a Subscription,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Incoming>, BrokerError>> {
        let mut found = Vec::new();
        let walked = self.walk(subscription, limit, |_, _, _, incoming| {
            found.push(incoming);
            true
        });
        Box::pin(ready(walked.map(|_| found)))
    }

    fn redrive<'a>(
        &'a self,
        subscription: &'a Subscription,
        limit: usize,
        choose: &'a (dyn Fn(&Incoming) -> Option<Headers> + Send + Sync),
    ) -> BoxFuture<'a, Result<usize, BrokerError>> {
        let moved = self.walk(subscription, limit, |name, number, message, incoming| {
            choose(&incoming).is_some_and(|headers| {
                let copy = Arc::new(message.with_headers(headers));
                self.take_dead(name, number, Some(copy))
            })
        });
        Box::pin(ready(moved))
    }

    fn purge<'a>(
        &'a self,
        subscription: &'a Subscription,
        limit: usize,
        choose: &'a (dyn Fn(&Incoming) -> bool + Send + Sync),
    ) -> BoxFuture<'a, Result<usize, BrokerError>> {
        let removed = self.walk(subscription, limit, |name, number, _, incoming| {
            choose(&incoming) && self.take_dead(name, number, None)
        });
        Box::pin(ready(removed))
    }
}
