//! What can lose messages that a broker has acknowledged.

use std::fmt;
use std::sync::Arc;

/// A setting of a broker (or of a subscription on it) with which acknowledged messages can be lost,
/// and the setting to change.
///
/// ```
/// use interline::messaging::DurabilityConcern;
///
/// let concern = DurabilityConcern::loss(
///     "the server keeps messages in memory only (`appendonly no`): a restart loses them",
///     "set `appendonly yes` in redis.conf",
/// );
/// assert_eq!(
///     concern.to_string(),
///     "the server keeps messages in memory only (`appendonly no`): a restart loses them; \
///      set `appendonly yes` in redis.conf"
/// );
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DurabilityConcern {
    /// How bad it is.
    pub weight: DurabilityWeight,
    /// The subscription it is about; `None` for the broker as a whole.
    pub subscription: Option<Arc<str>>,
    /// What is set, and when that loses messages.
    pub what: String,
    /// The setting to change, and to what.
    pub change: String,
}

/// How bad a [`DurabilityConcern`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DurabilityWeight {
    /// What happens in the life of every server loses acknowledged messages: a restart, a crash, a
    /// full queue. It is a warning, and an error where `require_durable` is set.
    Loss,
    /// It takes the loss of a disk, or was chosen in so many words by the subscriber. It is told,
    /// and never an error.
    Note,
}

impl DurabilityConcern {
    /// What loses acknowledged messages, and the setting to change.
    #[must_use]
    pub fn loss(what: impl Into<String>, change: impl Into<String>) -> Self {
        Self::new(DurabilityWeight::Loss, what.into(), change.into())
    }

    /// What somebody should know, and the setting to change if it is not meant.
    #[must_use]
    pub fn note(what: impl Into<String>, change: impl Into<String>) -> Self {
        Self::new(DurabilityWeight::Note, what.into(), change.into())
    }

    fn new(weight: DurabilityWeight, what: String, change: String) -> Self {
        Self {
            weight,
            subscription: None,
            what,
            change,
        }
    }

    /// About this subscription, by its label.
    #[must_use]
    pub fn of(mut self, subscription: &Arc<str>) -> Self {
        self.subscription = Some(Arc::clone(subscription));
        self
    }
}

impl fmt::Display for DurabilityConcern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(subscription) = &self.subscription {
            write!(f, "subscription `{subscription}`: ")?;
        }
        write!(f, "{}; {}", self.what, self.change)
    }
}
