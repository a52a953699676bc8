//! What a task is about that began with a request and not with a message.

use std::sync::Arc;

use tokio::time::Instant;

use crate::observability::TraceContext;

tokio::task_local! {
    /// The request that this task is about.
    static CURRENT: Arc<Errand>;
}

/// A request from outside, as far as it goes on with what is done for it: calls, and messages.
#[derive(Debug)]
pub(crate) struct Errand {
    pub(crate) deadline: Option<Instant>,
    pub(crate) trace: TraceContext,
    pub(crate) correlation_id: String,
    /// Whether it has been tried before, so that what is done for it need not be tried often.
    pub(crate) is_repeat: bool,
}

impl Errand {
    /// That of the task in which this is called, if there is one.
    pub(crate) fn current() -> Option<Arc<Self>> {
        CURRENT.try_with(Arc::clone).ok()
    }

    /// Runs a future for which this is the [`current`](Self::current) one.
    pub(crate) async fn enter<F: Future>(self: Arc<Self>, future: F) -> F::Output {
        CURRENT.scope(self, future).await
    }

    /// Runs a function for which this is the [`current`](Self::current) one.
    #[cfg(feature = "tower")]
    pub(crate) fn sync_enter<T>(self: Arc<Self>, run: impl FnOnce() -> T) -> T {
        CURRENT.sync_scope(self, run)
    }
}
