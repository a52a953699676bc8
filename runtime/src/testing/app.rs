//! `TestApp`: an app on an embedded broker, in virtual time, with crashes and faults.

mod builder;
#[cfg(feature = "http")]
mod calls;
mod process;
mod seed;
mod timeline;
mod watch;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep_until};

use crate::config::Config;
use crate::error::Report;
use crate::handling::{PublishError, Publishable, Publisher, Receipt};
use crate::launch::App;
use crate::manager::CommunicationManager;
use crate::message::{Encoded, Headers, Incoming, Message, MessageId, TopicPattern, headers::name};
use crate::messaging::DeadLetter;
use crate::messaging::memory::{MemoryFaults, MemoryStore};
use crate::observability::metrics::InMemoryMetrics;
use crate::plan::Wiring;

use process::Process;
use watch::Watchdog;

pub use builder::TestAppBuilder;

/// How far virtual time may go beyond what was asked for while messages are still under way.
const OVERTIME_MAX: Duration = Duration::from_secs(24 * 3600);
/// How often tasks that have settled their message get a turn to finish.
const LAST_TURNS: usize = 8;
/// Lines of the timeline that a failure shows.
const LINES_MAX: usize = 200;

/// An app on an embedded broker: its handlers run as in production, with retries, dead letters and
/// redelivery, and the test decides what goes wrong.
///
/// Handlers are [registered](TestAppBuilder::register) by name, so tests in one process do not see
/// each other's. With `#[tokio::test(start_paused = true)]` time is virtual: it goes on by itself
/// whenever nothing else is to do, so a retry after an hour takes no time. Without, everything but
/// [`advance`](Self::advance) works in real time.
///
/// ```
/// use interline::prelude::*;
/// use interline::testing::TestApp;
/// use interline::{assert_dead_lettered, assert_published};
///
/// interline::service!("billing");
///
/// #[derive(Message, Serialize, Deserialize)]
/// #[message(topic = "orders.placed", key = order_id)]
/// struct OrderPlaced { order_id: String, total_cents: u64 }
///
/// #[derive(Message, Serialize, Deserialize)]
/// #[message(topic = "billing.charged", subscribers = optional)]
/// struct Charged { order_id: String }
///
/// #[subscriber]
/// async fn charge(order: OrderPlaced, out: Out<Charged>) -> Outcome {
///     if order.total_cents == 0 {
///         return Outcome::dead_letter("nothing to charge");
///     }
///     let charged = Charged { order_id: order.order_id };
///     if let Err(error) = out.send(charged) {
///         return Outcome::retry(error.to_string());
///     }
///     Outcome::done()
/// }
///
/// # fn main() {
/// # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
/// #     .block_on(async {
/// let app = TestApp::new().register::<charge>().start().await;
/// app.publish(&OrderPlaced { order_id: "1".into(), total_cents: 500 }).await;
/// assert_published!(app, Charged { order_id: "1", .. });
///
/// app.publish(&OrderPlaced { order_id: "2".into(), total_cents: 0 }).await;
/// assert_dead_lettered!(app, charge, reason = "rejected");
/// # });
/// # }
/// ```
///
/// A failed assertion shows the [timeline](Self::timeline) and the seed with which the run is
/// repeated; so does a test that panics for any other reason.
pub struct TestApp {
    wiring: Wiring,
    stores: Vec<(Arc<str>, MemoryStore)>,
    metrics: InMemoryMetrics,
    outside: Publisher,
    process: Mutex<Arc<Process>>,
    runs: Mutex<u32>,
    /// What the test itself published.
    sent: Mutex<BTreeSet<MessageId>>,
    seed: u64,
    settle_limit: Duration,
    #[cfg(feature = "http")]
    upstreams: Vec<super::Upstream>,
    /// Whether a failure has shown the timeline already.
    told: AtomicBool,
}

impl TestApp {
    /// An app that runs only what is registered by name.
    #[expect(
        clippy::new_ret_no_self,
        reason = "an app is put together before it starts"
    )]
    pub fn new() -> TestAppBuilder {
        TestAppBuilder::new(App::new(Config::new()).named_only())
    }

    /// The program's own app, with embedded brokers in place of the configured ones, and with
    /// virtual time, seeded chance and metrics in memory in place of its own. Its hooks do not run.
    pub fn of(app: impl Into<App>) -> TestAppBuilder {
        TestAppBuilder::new(app.into())
    }

    /// Publishes as another service would (`&message`, or a [`Publish`](crate::Publish) with more to
    /// say), also while the app is down. Returns the message's identity.
    ///
    /// # Panics
    /// If the broker does not confirm it. For a publish that is to fail there is
    /// [`try_publish`](Self::try_publish).
    pub async fn publish(&self, message: impl Publishable) -> MessageId {
        let published = self.try_publish(message).await;
        self.confirmed(published)
    }

    /// [`publish`](Self::publish), with the broker's answer.
    ///
    /// # Errors
    /// [`PublishError`].
    pub async fn try_publish(&self, message: impl Publishable) -> Result<Receipt, PublishError> {
        let outgoing = message.prepare(&self.outside)?;
        lock(&self.sent).insert(outgoing.id.clone());
        self.outside.resend(outgoing).await
    }

    /// Publishes bytes with headers, as another system would. Returns the message's identity.
    ///
    /// # Panics
    /// If `topic` is not a topic, or the broker does not confirm it.
    pub async fn publish_raw(
        &self,
        topic: impl Into<String>,
        body: impl Into<Bytes>,
        headers: Headers,
    ) -> MessageId {
        let published = self.outside.publish_raw(topic, body, headers).await;
        if let Ok(receipt) = &published {
            lock(&self.sent).insert(receipt.id.clone());
        }
        self.confirmed(published)
    }

    fn confirmed(&self, published: Result<Receipt, PublishError>) -> MessageId {
        match published {
            Ok(receipt) => receipt.id,
            Err(error) => {
                let error = Report::from(error);
                panic!(
                    "{}",
                    self.failure(&format!("the test's own publish failed: {error:?}"))
                )
            }
        }
    }

    /// The app's own publisher: what it publishes counts as published by the app.
    #[must_use]
    pub fn publisher(&self) -> Publisher {
        self.process().manager.publisher()
    }

    /// Waits until nothing is queued, in flight or due now, without sleeping. A message that waits
    /// for a later retry stays there, and so does one whose subscription is paused or not running. A call
    /// that a handler waits for is waited for, however long that takes; any other only as far as it is answered
    /// now.
    ///
    /// # Panics
    /// If it does not come to rest within the [limit](TestAppBuilder::settle_limit) in real time, or
    /// within a day of virtual time; with what is still going on.
    pub async fn settle(&self) {
        self.rest(Instant::now()).await;
    }

    /// [`settle`](Self::settle), retries included that are due within `horizon` from now. Virtual
    /// time goes on only as far as it has to.
    ///
    /// # Panics
    /// As for [`settle`](Self::settle).
    pub async fn settle_within(&self, horizon: Duration) {
        self.rest(Instant::now() + horizon).await;
    }

    /// Lets `duration` of virtual time go by, with everything that is due in it, and settles.
    ///
    /// # Panics
    /// If time is not paused; or as for [`settle`](Self::settle).
    pub async fn advance(&self, duration: Duration) {
        assert!(
            watch::is_virtual(),
            "`advance` moves virtual time, and this test runs in real time; write \
             `#[tokio::test(start_paused = true)]`, which needs the current-thread runtime"
        );
        self.settle().await;
        let until = Instant::now() + duration;
        self.rest(until).await;
        sleep_until(until).await;
        self.settle().await;
    }

    /// The app dies as by SIGKILL: handlers end where they are, nothing is settled, confirmed or
    /// given back, its connections are gone. Tasks that a handler has spawned by itself go on.
    pub async fn crash(&self) {
        self.process().kill().await;
    }

    /// Goes down in order, as at the end of a deployment.
    pub async fn stop(&self) {
        self.process().stop().await;
    }

    /// Starts the app again, as a new instance on the same brokers and with the same states; goes
    /// down in order first if it still runs.
    ///
    /// # Panics
    /// If it does not become ready.
    pub async fn restart(&self) {
        let before = self.process();
        if before.is_running() {
            before.stop().await;
        } else {
            // A crash point may have ended it a moment ago.
            before.kill().await;
        }
        let run = {
            let mut runs = lock(&self.runs);
            *runs += 1;
            *runs
        };
        match Process::start(self.wiring.clone(), &self.stores, instance(run)).await {
            Ok(process) => *lock(&self.process) = Arc::new(process),
            Err(error) => {
                let what = format!("the app does not start again: {error}");
                panic!("{}", self.failure(&what));
            }
        }
    }

    /// Whether the app runs: it has neither crashed nor been stopped.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.process().is_running()
    }

    /// Makes things go wrong on the main broker. Faults of publishing hit whoever publishes next, be
    /// it the app or the test.
    #[must_use]
    pub fn faults(&self) -> MemoryFaults {
        self.stores[0].1.faults()
    }

    /// Makes things go wrong on the broker of this name.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn faults_of(&self, broker: &str) -> MemoryFaults {
        let found = self.stores.iter().find(|(name, _)| &**name == broker);
        let Some((_, store)) = found else {
            let names: Vec<&str> = self.stores.iter().map(|(name, _)| &**name).collect();
            panic!(
                "there is no broker `{broker}`; brokers: {}",
                names.join(", ")
            );
        };
        store.faults()
    }

    /// What the app has published of a type so far, in order, without what the test published
    /// itself. A message that was repeated after a crash is there again.
    ///
    /// # Panics
    /// If one of them cannot be read as `M`.
    #[must_use]
    pub fn published<M: Message>(&self) -> Vec<M> {
        let envelopes = self.envelopes::<M>();
        envelopes.iter().map(|sent| self.read(sent)).collect()
    }

    /// The same messages as [`published`](Self::published), as they were sent: identity, headers,
    /// bytes.
    #[must_use]
    pub fn envelopes<M: Message>(&self) -> Vec<Incoming> {
        let mut sent = self.sent_by_app();
        sent.retain(is_a::<M>);
        sent
    }

    /// Everything that the app has published.
    pub(super) fn sent_by_app(&self) -> Vec<Incoming> {
        let mut log = Vec::new();
        for (_, store) in &self.stores {
            log.extend(store.log());
        }
        let own = lock(&self.sent);
        log.retain(|message| !own.contains(&message.id));
        log
    }

    fn read<M: Message>(&self, message: &Incoming) -> M {
        let codecs = &self.wiring.codecs;
        let content_type = message.headers.text(name::CONTENT_TYPE);
        let codec = match &content_type {
            Some(content_type) => codecs.by_content_type(content_type),
            None => codecs.default_codec(),
        };
        let contract = M::CONTRACT;
        let Some(codec) = codec else {
            let content_type = content_type.unwrap_or_default();
            panic!(
                "no codec reads the `{}` of content-type `{content_type}`",
                contract.name
            );
        };
        let encoded = Encoded::new(codec, &message.body, &message.headers, &message.topic);
        match M::decode(encoded) {
            Ok(message) => message,
            Err(error) => panic!(
                "a published `{}` cannot be read as one: {error} (id {})",
                contract.name, message.id
            ),
        }
    }

    /// What a subscriber has given up, oldest first. It does not settle first.
    ///
    /// # Panics
    /// If there is no such subscriber.
    pub async fn dead_letters(&self, subscriber: &str) -> Vec<DeadLetter> {
        let process = self.process();
        let found = match process.manager.dead_letters(subscriber) {
            Ok(found) => found,
            Err(error) => panic!("{error}"),
        };
        let mut letters = Vec::new();
        for of_topic in found {
            match of_topic.list(usize::MAX).await {
                Ok(listed) => letters.extend(listed),
                Err(error) => panic!("the dead letters of `{subscriber}` cannot be read: {error}"),
            }
        }
        letters
    }

    /// Stops fetching for a subscriber.
    ///
    /// # Panics
    /// If there is no such subscriber, or the app does not run.
    pub async fn pause(&self, subscriber: &str) {
        if let Err(error) = self.process().manager.pause(subscriber).await {
            panic!("{error}");
        }
    }

    /// Fetches again for a subscriber.
    ///
    /// # Panics
    /// If there is no such subscriber, or the app does not run.
    pub async fn resume(&self, subscriber: &str) {
        if let Err(error) = self.process().manager.resume(subscriber).await {
            panic!("{error}");
        }
    }

    /// What was measured, all runs together.
    #[must_use]
    pub fn metrics(&self) -> &InMemoryMetrics {
        &self.metrics
    }

    /// The manager of the app's last run: health, brokers, the dead letters of other groups.
    #[must_use]
    pub fn manager(&self) -> Arc<CommunicationManager> {
        Arc::clone(&self.process().manager)
    }

    /// The seed of this run.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// What happened, a line each in order of virtual time: what was published, handed out, settled,
    /// retried. Each message has a number and stands below and to the right of what caused it.
    #[must_use]
    pub fn timeline(&self) -> String {
        self.tell(usize::MAX)
    }

    fn tell(&self, lines_max: usize) -> String {
        let events = self.stores.iter();
        let events = events.map(|(name, store)| (Arc::clone(name), store.events()));
        timeline::tell(&events.collect::<Vec<_>>(), lines_max)
    }

    /// The text of a failed test: what is wrong, what happened, and how to see it again.
    pub(super) fn failure(&self, what: &str) -> String {
        self.told.store(true, Ordering::Relaxed);
        let (timeline, replay) = (self.tell(LINES_MAX), seed::replay(self.seed));
        format!("{what}\n\ntimeline:\n{timeline}\n{replay}\n")
    }

    fn process(&self) -> Arc<Process> {
        Arc::clone(&lock(&self.process))
    }

    /// Waits until nothing is under way and nothing is due at or before `horizon`.
    async fn rest(&self, horizon: Instant) {
        tokio::select! {
            biased;
            () = self.idle(horizon) => return self.last_turns().await,
            () = std::future::ready(()) => {}
        }
        let mut limit = self.settle_limit;
        if !watch::is_virtual() {
            limit += horizon.saturating_duration_since(Instant::now());
        }
        let mut watchdog = Watchdog::new(limit);
        let over = tokio::select! {
            biased;
            () = self.idle(horizon) => return self.last_turns().await,
            () = watchdog.over() => format!("{limit:?} of real time"),
            () = sleep_until(horizon + OVERTIME_MAX) => format!("{OVERTIME_MAX:?} of virtual time"),
        };
        let mut activity = String::new();
        for (name, store) in &self.stores {
            let now = store.activity();
            activity.push_str(&format!(
                "\n  broker {name}: {} ready, {} in flight, {} waiting for a later time",
                now.ready, now.in_flight, now.waiting
            ));
        }
        #[cfg(feature = "http")]
        activity.push_str(&self.due_calls(horizon));
        let what = format!("the app did not come to rest within {over}:{activity}");
        panic!("{}", self.failure(&what));
    }

    async fn idle(&self, horizon: Instant) {
        loop {
            for (_, store) in &self.stores {
                store.idle(horizon).await;
            }
            // A later broker may have given an earlier one something to do.
            let calm = self.stores.iter().all(|(_, store)| {
                let due = store.next_due().is_some_and(|due| due <= horizon);
                !due && store.activity().in_flight == 0
            });
            #[cfg(feature = "http")]
            let calm = calm && self.called(horizon).await;
            if calm {
                return;
            }
        }
    }

    /// A message counts as settled a moment before its task has ended.
    async fn last_turns(&self) {
        for _ in 0..LAST_TURNS {
            tokio::task::yield_now().await;
        }
    }
}

/// Tells a test's own panic what happened and how to see it again.
impl Drop for TestApp {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.told.load(Ordering::Relaxed) {
            eprintln!("{}", self.failure("the test failed"));
        }
    }
}

impl fmt::Debug for TestApp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestApp")
            .field("seed", &self.seed)
            .field("running", &self.is_running())
            .field("stores", &self.stores)
            .finish_non_exhaustive()
    }
}

/// Whether a message is an `M`: by the name of its type, or by its topic if it does not say.
fn is_a<M: Message>(message: &Incoming) -> bool {
    let contract = M::CONTRACT;
    match message.message_type() {
        Some(name) => name == contract.name,
        None => {
            TopicPattern::parse(contract.topic).is_ok_and(|pattern| pattern.matches(&message.topic))
        }
    }
}

/// The name of the app's `run`-th process, from 1.
fn instance(run: u32) -> Arc<str> {
    format!("run-{run}").into()
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
