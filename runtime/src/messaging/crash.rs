//! Where a process can die while it handles a message: a hook for tests.

use crate::handling::Failed;
use crate::message::Incoming;

/// A place between two steps of handling one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum CrashPoint {
    /// The message has arrived, its handler was not called yet.
    BeforeHandler,
    /// The handler has returned, nothing that it sent was published yet.
    BeforeOutputs,
    /// Everything that the handler sent is confirmed, the message is not settled yet.
    BeforeSettlement,
    /// The broker has taken the settlement.
    AfterSettlement,
}

/// Decides at which points a process dies. The engine asks at each; production has none.
pub trait CrashPoints: Send + Sync {
    /// Whether the process dies here. After `true` the engine does nothing more: it publishes,
    /// settles and fetches nothing.
    fn reached(&self, point: CrashPoint) -> bool;

    /// The engine also tells why an attempt failed, so that a test can tell it on.
    fn attempt_failed(&self, _incoming: &Incoming, _failed: &Failed) {}
}
