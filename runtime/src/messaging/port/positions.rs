//! Where a subscription reads, on a broker that keeps what was read.

use std::time::SystemTime;

use tokio::sync::mpsc;

use crate::handling::BoxFuture;
use crate::message::Incoming;

use super::{BrokerError, Subscription};

/// A point in everything that a broker keeps of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Position {
    /// The oldest message that the broker still has.
    Earliest,
    /// Behind the newest message that there is now.
    Latest,
    /// The first message with this time or a later one.
    Time(SystemTime),
}

/// The positions of subscriptions.
pub trait PositionStore: Send + Sync {
    /// Moves the positions of a subscription that nobody reads. What waits for a retry stays.
    fn reset<'a>(
        &'a self,
        subscription: &'a Subscription,
        to: Position,
    ) -> BoxFuture<'a, Result<(), BrokerError>>;

    /// Moves the positions of what this process reads of a subscription now, which goes on from there;
    /// returns in how many parts of it. What is out then can no longer be settled.
    fn seek<'a>(
        &'a self,
        subscription: &'a Subscription,
        to: Position,
    ) -> BoxFuture<'a, Result<usize, BrokerError>>;

    /// Reads what lies in a subscription's topics from the first position up to, and without, the second
    /// into `messages`; returns how many there were. No group takes part. Ends early when nobody takes
    /// messages any more.
    fn replay<'a>(
        &'a self,
        subscription: &'a Subscription,
        window: (Position, Position),
        messages: mpsc::Sender<Incoming>,
    ) -> BoxFuture<'a, Result<u64, BrokerError>>;
}
