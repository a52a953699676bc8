//! The engine: takes deliveries of one subscription, runs attempts, decides fates, settles.
//!
//! [`Runner`] owns one subscription. Its dispatcher hands deliveries to attempts (at once, in lanes
//! by key, or in batches); `attempt` runs the handler under time limit and panic guard;
//! `verdict` turns an outcome into what is done with the message; `process` carries it out.

mod attempt;
mod batches;
mod breaker;
mod calls;
mod crew;
mod dispatcher;
mod faults;
mod gate;
mod held;
mod process;
mod publishing;
mod routes;
mod runner;
mod subscription;
mod verdict;

use std::sync::Arc;

use crate::clock::{Clock, Rng};
use crate::handling::{Middleware, PublishPort};
use crate::message::Codecs;
use crate::messaging::CrashPoints;
use crate::observability::metrics::MetricsSink;

pub use publishing::{BrokerLimits, PublishTarget, Publishing};
pub(crate) use routes::MAIN_BROKER;
pub use routes::Routes;
pub use runner::{Drained, Runner, SubscriptionHealth};

/// What all subscriptions of one app share.
#[derive(Clone)]
#[non_exhaustive]
pub struct Environment {
    /// All codecs.
    pub codecs: Arc<Codecs>,
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// Chance.
    pub rng: Rng,
    /// Where measurements go.
    pub metrics: Option<Arc<dyn MetricsSink>>,
    /// Code of the user around each attempt, outermost first.
    pub middleware: Arc<[Arc<dyn Middleware>]>,
    /// Publishes what handlers send.
    pub publishing: Arc<dyn PublishPort>,
    /// Where a test lets the process die.
    pub crash_points: Option<Arc<dyn CrashPoints>>,
}

impl Environment {
    /// An environment without metrics and middleware.
    #[must_use]
    pub fn new(
        codecs: Arc<Codecs>,
        clock: Arc<dyn Clock>,
        rng: Rng,
        publishing: Arc<dyn PublishPort>,
    ) -> Self {
        Self {
            codecs,
            clock,
            rng,
            metrics: None,
            middleware: Arc::new([]),
            publishing,
            crash_points: None,
        }
    }
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Environment")
            .field("codecs", &self.codecs)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[cfg(all(feature = "memory", feature = "json"))]
mod tests;
