//! Turns that nobody made use of, on their way back to the server.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::timeout;

use super::super::RateLimited;
use super::link::Link;
use super::script::Rate;

/// How long the server may take, for an answer that nobody waits for any more and to take a turn back.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many such answers are waited for at once; turns beyond are lost.
const LATE_MAX: usize = 64;

/// What the server says: in how long the turn is, or that there is none; or why it says nothing.
pub(super) type Said = Result<Result<Duration, RateLimited>, String>;

/// The way back.
pub(super) struct Returns {
    pub(super) link: Arc<Link>,
    pub(super) rate: Rate,
    pub(super) key: String,
    owed: AtomicU32,
    running: AtomicBool,
    late: AtomicUsize,
}

impl Returns {
    pub(super) fn new(link: Arc<Link>, rate: Rate, key: String) -> Arc<Self> {
        Arc::new(Self {
            link,
            rate,
            key,
            owed: AtomicU32::new(0),
            running: AtomicBool::new(false),
            late: AtomicUsize::new(0),
        })
    }

    /// Asks for a turn.
    pub(super) async fn ask(self: Arc<Self>, wait: Duration) -> Said {
        let connection = self.link.connection().await?;
        let asked = self.rate.ask(&connection, &self.key, wait).await;
        asked.map_err(|failure| failure.message)
    }

    /// Gives a turn back, in a task that takes along what else there is to give back by then.
    fn give_back(self: &Arc<Self>) {
        self.owed.fetch_add(1, Ordering::AcqRel);
        // Without a runtime the program ends, and its last turns are lost.
        if let Ok(runtime) = Handle::try_current()
            && !self.running.swap(true, Ordering::AcqRel)
        {
            runtime.spawn(Arc::clone(self).run());
        }
    }

    async fn run(self: Arc<Self>) {
        loop {
            let count = self.owed.swap(0, Ordering::AcqRel);
            if count > 0 {
                // Where it fails the turns are lost: less is let through than may be, and not more.
                let _ = timeout(PATIENCE, self.put(count)).await;
                continue;
            }
            self.running.store(false, Ordering::Release);
            // One more may have come that found it running.
            let more = self.owed.load(Ordering::Acquire) > 0;
            if !more || self.running.swap(true, Ordering::AcqRel) {
                return;
            }
        }
    }

    async fn put(&self, count: u32) -> Result<(), String> {
        let connection = self.link.connection().await?;
        let put = self.rate.put(&connection, &self.key, count).await;
        put.map_err(|failure| failure.message)
    }
}

/// The right to start, from the server; dropped before it is taken, it goes back.
#[derive(Debug)]
pub(crate) struct SharedTurn(Option<Arc<Returns>>);

impl SharedTurn {
    pub(super) fn new(returns: &Arc<Returns>) -> Self {
        Self(Some(Arc::clone(returns)))
    }

    /// It is made use of.
    pub(crate) fn take(mut self) {
        self.0 = None;
    }
}

impl Drop for SharedTurn {
    fn drop(&mut self) {
        if let Some(returns) = self.0.take() {
            returns.give_back();
        }
    }
}

impl std::fmt::Debug for Returns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Returns")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// A question to the server. Given up, its answer is waited for all the same: the turn that may come
/// with it goes back.
pub(super) struct Asking {
    question: Option<Pin<Box<dyn Future<Output = Said> + Send>>>,
    returns: Arc<Returns>,
    begun: bool,
}

impl Asking {
    pub(super) fn new(returns: &Arc<Returns>, wait: Duration) -> Self {
        Self {
            question: Some(Box::pin(Arc::clone(returns).ask(wait))),
            returns: Arc::clone(returns),
            begun: false,
        }
    }

    /// A turn that comes later is made use of, or not worth the trouble.
    pub(super) fn forget(mut self) {
        self.question = None;
    }
}

impl Future for Asking {
    type Output = Said;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Said> {
        let this = &mut *self;
        this.begun = true;
        let Some(question) = &mut this.question else {
            return Poll::Pending;
        };
        let said = question.as_mut().poll(cx);
        if said.is_ready() {
            this.question = None;
        }
        said
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        let Some(question) = self.question.take().filter(|_| self.begun) else {
            return;
        };
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let Some(late) = Late::begin(&self.returns) else {
            return;
        };
        runtime.spawn(async move {
            if let Ok(Ok(Ok(_))) = timeout(PATIENCE, question).await {
                late.0.give_back();
            }
        });
    }
}

/// An answer that is waited for by nobody but the way back.
struct Late(Arc<Returns>);

impl Late {
    fn begin(returns: &Arc<Returns>) -> Option<Self> {
        let one_more = |count| (count < LATE_MAX).then_some(count + 1);
        let late = &returns.late;
        let begun = late.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        begun.is_ok().then(|| Self(Arc::clone(returns)))
    }
}

impl Drop for Late {
    fn drop(&mut self) {
        self.0.late.fetch_sub(1, Ordering::Relaxed);
    }
}
