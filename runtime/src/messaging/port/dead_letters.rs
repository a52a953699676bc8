//! What was given up, kept by the broker.

use crate::handling::BoxFuture;
use crate::message::{Headers, Incoming};

use super::{BrokerError, Subscription};

/// What was given up, per subscription.
pub trait DeadLetterStore: Send + Sync {
    /// Reads at most `limit` dead letters of a subscription, oldest first, without taking them out.
    fn list<'a>(
        &'a self,
        subscription: &'a Subscription,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Incoming>, BrokerError>>;

    /// Moves dead letters for which `choose` gives new headers back to the subscription: each copy
    /// is confirmed before the dead letter is removed, so that a crash repeats and never loses. Several
    /// may be on their way at once, in their order. Looks at each dead letter once; stops after `limit`
    /// were moved. Returns how many.
    fn redrive<'a>(
        &'a self,
        subscription: &'a Subscription,
        limit: usize,
        choose: &'a (dyn Fn(&Incoming) -> Option<Headers> + Send + Sync),
    ) -> BoxFuture<'a, Result<usize, BrokerError>>;

    /// Removes dead letters for which `choose` says so, at most `limit`. Returns how many.
    fn purge<'a>(
        &'a self,
        subscription: &'a Subscription,
        limit: usize,
        choose: &'a (dyn Fn(&Incoming) -> bool + Send + Sync),
    ) -> BoxFuture<'a, Result<usize, BrokerError>>;
}
