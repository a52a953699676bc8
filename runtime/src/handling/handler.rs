//! A bound handler: the user's function behind one of two shapes.

use std::fmt;
use std::sync::Arc;

use crate::message::Incoming;

use super::BoxFuture;
use super::outcome::Outcome;
use super::scope::Scope;

/// Handles one message.
pub type OneFn = dyn Fn(Arc<Incoming>, Scope) -> BoxFuture<'static, Outcome> + Send + Sync;

/// Handles several messages; gives one outcome for each, in the same order.
pub type BatchFn =
    dyn Fn(Vec<Arc<Incoming>>, Scope) -> BoxFuture<'static, Vec<Outcome>> + Send + Sync;

/// A handler that is ready to run.
#[derive(Clone)]
#[non_exhaustive]
pub enum Handler {
    /// Takes messages one by one.
    One(Arc<OneFn>),
    /// Takes messages in batches.
    Batch(Arc<BatchFn>),
}

impl Handler {
    /// A handler of single messages.
    pub fn one<F, R>(run: F) -> Self
    where
        F: Fn(Arc<Incoming>, Scope) -> R + Send + Sync + 'static,
        R: Future<Output = Outcome> + Send + 'static,
    {
        Self::One(Arc::new(move |incoming, scope| {
            Box::pin(run(incoming, scope))
        }))
    }

    /// A handler of batches.
    pub fn batch<F, R>(run: F) -> Self
    where
        F: Fn(Vec<Arc<Incoming>>, Scope) -> R + Send + Sync + 'static,
        R: Future<Output = Vec<Outcome>> + Send + 'static,
    {
        Self::Batch(Arc::new(move |incoming, scope| {
            Box::pin(run(incoming, scope))
        }))
    }
}

impl fmt::Debug for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::One(_) => "Handler::One",
            Self::Batch(_) => "Handler::Batch",
        })
    }
}
