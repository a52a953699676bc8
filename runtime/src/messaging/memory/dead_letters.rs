//! The dead letters of each queue: list, re-drive, purge.

use std::future::ready;
use std::ops::Bound;
use std::sync::Arc;

use crate::handling::BoxFuture;
use crate::message::{Headers, Incoming};
use crate::messaging::{BrokerError, BrokerErrorKind, DeadLetterStore, Subscription};

use super::broker::Link;
use super::queue::{read_from, with_headers};
use super::topology::{grave_name, queue_name, queue_spec};

impl Link {
    /// Reads the first dead letter above the number `after`.
    fn dead_after(&self, grave: usize, after: u64) -> Option<(u64, Arc<Incoming>)> {
        let state = self.shared.lock();
        let mut rest = state.graves[grave].range((Bound::Excluded(after), Bound::Unbounded));
        let (number, message) = rest.next()?;
        Some((*number, Arc::clone(message)))
    }

    /// Where the dead letters of a subscription are, and the number of the last one, so that a walk
    /// ends although new ones come.
    fn grave(&self, name: &str) -> Result<(usize, u64), BrokerError> {
        let state = self.shared.lock();
        let Some(grave) = state.grave_called(name) else {
            let why = format!("`{name}` was never subscribed, so it has no dead letters");
            return Err(BrokerError::new(BrokerErrorKind::NotFound, &self.name, why));
        };
        let last = state.graves[grave].last_key_value();
        Ok((grave, last.map_or(0, |(last, _)| *last)))
    }

    /// Looks at each dead letter once, oldest first, until `limit` were taken. The caller's code runs
    /// without the store's lock.
    fn walk(
        &self,
        subscription: &Subscription,
        limit: usize,
        mut take: impl FnMut(usize, u64, &Arc<Incoming>, Incoming) -> Result<bool, BrokerError>,
    ) -> Result<usize, BrokerError> {
        let name = grave_name(self.prefix.as_deref(), &queue_spec(subscription));
        let (grave, last) = self.grave(&name)?;
        let name = Arc::from(name);
        let (mut at, mut taken) = (0, 0);
        while taken < limit
            && let Some((number, message)) = self.dead_after(grave, at)
            && number <= last
        {
            at = number;
            let incoming = read_from(&message, &self.name, &name, false);
            taken += usize::from(take(grave, number, &message, incoming)?);
        }
        Ok(taken)
    }

    /// Takes a dead letter out, and puts `copy` into the subscription's queue in the same step.
    /// `false` if somebody else was faster.
    fn move_dead(
        &self,
        subscription: &Subscription,
        grave: usize,
        number: u64,
        copy: Arc<Incoming>,
    ) -> Result<bool, BrokerError> {
        let queue = queue_name(self.prefix.as_deref(), subscription);
        self.shared.with(|state| {
            let Some(at) = state.queue_called(&queue) else {
                let why = format!("there is no queue `{queue}` to move dead letters to");
                return Err(BrokerError::new(BrokerErrorKind::NotFound, &self.name, why));
            };
            let moved = state.graves[grave].remove(&number).is_some();
            if moved {
                state.arrive(at, copy, 0, None);
                state.pump(at);
            }
            Ok(moved)
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
            Ok(true)
        });
        Box::pin(ready(walked.map(|_| found)))
    }

    fn redrive<'a>(
        &'a self,
        subscription: &'a Subscription,
        limit: usize,
        choose: &'a (dyn Fn(&Incoming) -> Option<Headers> + Send + Sync),
    ) -> BoxFuture<'a, Result<usize, BrokerError>> {
        let moved = self.walk(subscription, limit, |grave, number, message, incoming| {
            let Some(headers) = choose(&incoming) else {
                return Ok(false);
            };
            let copy = Arc::new(with_headers(message, headers));
            self.move_dead(subscription, grave, number, copy)
        });
        Box::pin(ready(moved))
    }

    fn purge<'a>(
        &'a self,
        subscription: &'a Subscription,
        limit: usize,
        choose: &'a (dyn Fn(&Incoming) -> bool + Send + Sync),
    ) -> BoxFuture<'a, Result<usize, BrokerError>> {
        let removed = self.walk(subscription, limit, |grave, number, _, incoming| {
            let gone = || self.shared.lock().graves[grave].remove(&number).is_some();
            Ok(choose(&incoming) && gone())
        });
        Box::pin(ready(removed))
    }
}
