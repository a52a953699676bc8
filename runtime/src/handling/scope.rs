//! The surroundings of one attempt: deadline, cancellation, publisher, and what was sent so far.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::message::{CodecRef, Codecs, Incoming, Message, Outgoing, TopicPattern};
use crate::observability::{Correlation, TraceContext};

use super::outcome::Outcome;
use super::publish::PublishError;
use super::publisher::{Publish, PublishOptions, Publisher, answering};

/// What is done with a message that a subscriber has no handler for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnUnknown {
    /// It goes to the dead letters.
    DeadLetter,
    /// It is dropped, and counted.
    Skip,
}

/// What is the same for every attempt of one subscriber.
#[derive(Debug)]
#[non_exhaustive]
pub struct SubscriberContext {
    /// The subscriber's stable name.
    pub name: Arc<str>,
    /// `{service}.{name}`, which no other service's subscriber shares: ids of outputs derive from it.
    pub qualified_name: Arc<str>,
    /// The topic, or template, that it listens to.
    pub pattern: TopicPattern,
    /// All codecs of the app.
    pub codecs: Arc<Codecs>,
    /// The codec for messages without a `content-type`.
    pub codec: CodecRef,
    /// What is done with a message it cannot read although it was told to take anything.
    pub on_unknown: OnUnknown,
    /// Publishes for the service that the subscriber belongs to.
    pub publisher: Publisher,
}

impl SubscriberContext {
    /// The context of the subscriber `name`.
    #[must_use]
    pub fn new(
        name: Arc<str>,
        pattern: TopicPattern,
        codecs: Arc<Codecs>,
        codec: CodecRef,
        publisher: Publisher,
    ) -> Self {
        let qualified_name = format!("{}.{name}", publisher.service()).into();
        Self {
            name,
            qualified_name,
            pattern,
            codecs,
            codec,
            on_unknown: OnUnknown::DeadLetter,
            publisher,
        }
    }

    /// With this answer to what it cannot read.
    #[must_use]
    pub fn with_on_unknown(mut self, on_unknown: OnUnknown) -> Self {
        self.on_unknown = on_unknown;
        self
    }
}

tokio::task_local! {
    /// The attempt that this task is about.
    static CURRENT: Scope;
}

/// The surroundings of one attempt. Cheap to clone; extractors take from it what they need.
#[derive(Clone)]
pub struct Scope(Arc<Inner>);

struct Inner {
    context: Arc<SubscriberContext>,
    input: Arc<Incoming>,
    /// Made when somebody asks: most attempts need neither.
    trace: OnceLock<TraceContext>,
    cancel: OnceLock<Cancel>,
    deadline: Instant,
    /// Made when there is something to keep.
    kept: OnceLock<Mutex<Kept>>,
}

/// What an attempt leaves behind, where it does.
#[derive(Default)]
struct Kept {
    /// Outputs that were prepared.
    outputs: usize,
    /// Those that are sent when it has succeeded.
    sent: Vec<Outgoing>,
    /// Where a manual settlement goes.
    verdict: Option<oneshot::Sender<Outcome>>,
}

impl Scope {
    /// The scope of an attempt at `input` (for a batch: its first message) that ends at `deadline`.
    #[must_use]
    pub fn new(
        context: Arc<SubscriberContext>,
        input: Arc<Incoming>,
        deadline: Instant,
        cancel: Cancel,
    ) -> Self {
        Self::with(context, input, deadline, OnceLock::from(cancel))
    }

    /// The scope of an attempt that nobody can cancel before it has begun.
    pub(crate) fn of_attempt(
        context: Arc<SubscriberContext>,
        input: Arc<Incoming>,
        deadline: Instant,
    ) -> Self {
        Self::with(context, input, deadline, OnceLock::new())
    }

    fn with(
        context: Arc<SubscriberContext>,
        input: Arc<Incoming>,
        deadline: Instant,
        cancel: OnceLock<Cancel>,
    ) -> Self {
        Self(Arc::new(Inner {
            context,
            input,
            trace: OnceLock::new(),
            deadline,
            cancel,
            kept: OnceLock::new(),
        }))
    }

    /// The scope of the attempt within which this is called; `None` outside of a handler, and in tasks
    /// that a handler spawned.
    #[must_use]
    pub fn current() -> Option<Self> {
        CURRENT.try_with(Clone::clone).ok()
    }

    /// Runs a future for which this is the [`current`](Self::current) scope.
    #[cfg(feature = "http")]
    pub(crate) async fn enter<F: Future>(self, future: F) -> F::Output {
        CURRENT.scope(self, future).await
    }

    /// Runs something for which this is the [`current`](Self::current) scope.
    pub(crate) fn within<T>(&self, run: impl FnOnce() -> T) -> T {
        CURRENT.sync_scope(self.clone(), run)
    }

    /// Drops a future for which this is the [`current`](Self::current) scope, also where the thread that
    /// drops it is about to end.
    pub(crate) fn drop_within(&self, future: impl Future) {
        drop(CURRENT.scope(self.clone(), future));
    }

    /// The message that is being handled; of a batch, its first.
    #[must_use]
    pub fn input(&self) -> &Incoming {
        &self.0.input
    }

    /// What is the same for every attempt of this subscriber.
    #[must_use]
    pub fn context(&self) -> &SubscriberContext {
        &self.0.context
    }

    /// When the attempt is ended.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.0.deadline
    }

    /// Fires when the attempt should stop.
    #[must_use]
    pub fn cancel(&self) -> &Cancel {
        self.0.cancel.get_or_init(Cancel::new)
    }

    /// Where the attempt stands in its trace.
    #[must_use]
    pub fn trace(&self) -> &TraceContext {
        self.0.trace.get_or_init(|| {
            let rng = self.0.context.publisher.rng();
            TraceContext::read(&self.0.input.headers)
                .map_or_else(|| TraceContext::root(rng), |parent| parent.child(rng))
        })
    }

    /// A publisher that passes on correlation and trace of the message being handled.
    #[must_use]
    pub fn publisher(&self) -> Publisher {
        let correlation = Correlation::following(&self.0.input);
        self.0
            .context
            .publisher
            .caused_by(correlation, self.trace().clone())
    }

    /// Prepares a message that is published when the attempt has succeeded. Its identity is derived
    /// from the input's, and it inherits the input's key unless it has its own.
    pub(crate) fn prepare_output<M: Message>(
        &self,
        publish: Publish<M>,
    ) -> Result<Outgoing, PublishError> {
        let index = {
            let mut kept = self.keep();
            kept.outputs += 1;
            kept.outputs - 1
        };
        let (message, mut options) = publish.into_parts();
        if !options.has_key() && message.key().is_none() {
            options = options.key(self.0.input.key.as_deref().map(str::to_owned));
        }
        let derive = || {
            Some(
                self.0
                    .input
                    .id
                    .derive(&self.0.context.qualified_name, index),
            )
        };
        self.publisher().prepare(&message, options, derive)
    }

    /// Prepares the reply to the message being handled; `None` if that does not ask for one.
    pub(crate) fn prepare_reply<M: Message>(
        &self,
        reply: &M,
    ) -> Result<Option<Outgoing>, PublishError> {
        let input = &self.0.input;
        if !super::is_request(input) {
            return Ok(None);
        }
        let name = format!("{}#reply", self.0.context.qualified_name);
        let derive = || Some(input.id.derive(&name, 0));
        let options = PublishOptions::on_broker(&input.origin.broker);
        let outgoing = self.publisher().prepare(reply, options, derive)?;
        Ok(answering(input, outgoing))
    }

    /// Keeps a prepared message until the attempt has succeeded.
    pub(crate) fn send_later(&self, outgoing: Outgoing) {
        self.keep().sent.push(outgoing);
    }

    /// Takes what was sent during the attempt.
    pub(crate) fn take_sent(&self) -> Vec<Outgoing> {
        self.kept()
            .map(|mut kept| std::mem::take(&mut kept.sent))
            .unwrap_or_default()
    }

    /// Where a manual settlement arrives. The engine calls it before the handler runs.
    pub(crate) fn expect_verdict(&self) -> oneshot::Receiver<Outcome> {
        let (sender, receiver) = oneshot::channel();
        self.keep().verdict = Some(sender);
        receiver
    }

    pub(crate) fn take_verdict(&self) -> Option<oneshot::Sender<Outcome>> {
        self.kept()?.verdict.take()
    }

    /// What is kept, if anything ever was.
    fn kept(&self) -> Option<MutexGuard<'_, Kept>> {
        let kept = self.0.kept.get()?;
        Some(kept.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The same, to add to it.
    fn keep(&self) -> MutexGuard<'_, Kept> {
        let kept = self.0.kept.get_or_init(Mutex::default);
        kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope")
            .field("subscriber", &self.0.context.name)
            .field("input", &self.0.input.id)
            .finish_non_exhaustive()
    }
}

/// Tells a handler that it should stop: its time is up, or the service is going down and will not
/// wait longer.
#[derive(Clone, Default)]
pub struct Cancel(Arc<CancelState>);

#[derive(Default)]
struct CancelState {
    fired: AtomicBool,
    notify: Notify,
}

impl Cancel {
    /// One that has not fired.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Fires it; everybody who waits is woken.
    pub fn cancel(&self) {
        self.0.fired.store(true, Ordering::Release);
        self.0.notify.notify_waiters();
    }

    /// Whether it has fired.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.fired.load(Ordering::Acquire)
    }

    /// Waits until it fires.
    pub async fn cancelled(&self) {
        loop {
            let notified = self.0.notify.notified();
            tokio::pin!(notified);
            // Registered before the flag is read, so that a firing in between is not missed.
            notified.as_mut().enable();
            if self.is_cancelled() {
                return;
            }
            notified.await;
        }
    }
}

impl fmt::Debug for Cancel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cancel").field(&self.is_cancelled()).finish()
    }
}
