//! Requests with their replies, and messages for later, as a service's tests use them.
#![cfg(all(feature = "testing", feature = "macros", feature = "json"))]
#![expect(
    clippy::unwrap_used,
    reason = "it is all tests, and the lint takes their helpers for something else"
)]

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use interline::config::Config;
use interline::handling::{PublishErrorKind, Reply, RequestErrorKind};
use interline::messaging::ConsumerState;
use interline::observability::metrics;
use interline::prelude::*;
use interline::resilience::CircuitState;
use interline::testing::TestApp;
use tokio::time::{Instant, sleep};

interline::service!("quotes");

#[derive(Debug, Message, Serialize, Deserialize)]
#[message(topic = "quotes.asked", reply = Quote)]
struct Ask {
    sku: String,
}

#[derive(Debug, PartialEq, Message, Serialize, Deserialize)]
#[message(topic = "quotes.given")]
struct Quote {
    cents: u64,
}

/// Asks through another handler, which asks itself.
#[derive(Debug, Message, Serialize, Deserialize)]
#[message(topic = "totals.asked", reply = Total)]
struct AskTotal {
    skus: Vec<String>,
}

#[derive(Debug, PartialEq, Message, Serialize, Deserialize)]
#[message(topic = "totals.given")]
struct Total {
    cents: u64,
}

#[derive(Debug, Message, Serialize, Deserialize)]
#[message(topic = "carts.reminder")]
struct Reminder {
    cart: u64,
}

#[derive(Debug, Message, Serialize, Deserialize)]
#[message(topic = "carts.changed")]
struct CartChanged {
    cart: u64,
}

#[derive(Debug, Failure)]
enum QuoteError {
    #[fate(dead_letter)]
    UnknownSku,
    #[fate(retry)]
    Down,
    #[fate(discard)]
    Withdrawn,
}

impl std::fmt::Display for QuoteError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::UnknownSku => "no such article",
            Self::Down => "the price book is closed",
            Self::Withdrawn => "no longer sold",
        })
    }
}

impl std::error::Error for QuoteError {}

/// What handlers have seen.
#[derive(Clone, Default)]
struct World {
    calls: Arc<AtomicU32>,
    reminders: Arc<Mutex<Vec<(u64, Duration)>>>,
    begun: Arc<Mutex<Option<Instant>>>,
}

impl World {
    fn calls(&self) -> u32 {
        self.calls.load(Ordering::SeqCst)
    }

    /// The reminders so far: the cart, and the whole seconds since the start.
    fn reminders(&self) -> Vec<(u64, u64)> {
        let reminders = self.reminders.lock().unwrap();
        let whole = |(cart, after): &(u64, Duration)| (*cart, after.as_secs());
        reminders.iter().map(whole).collect()
    }

    fn begin(&self) {
        *self.begun.lock().unwrap() = Some(Instant::now());
    }
}

#[subscriber(retry(attempts = 3, first = "100ms", max = "100ms"))]
async fn quote(ask: Ask, world: State<World>) -> Result<Reply<Quote>, QuoteError> {
    world.calls.fetch_add(1, Ordering::SeqCst);
    match ask.sku.as_str() {
        "unknown" => Err(QuoteError::UnknownSku),
        "down" => Err(QuoteError::Down),
        "withdrawn" => Err(QuoteError::Withdrawn),
        "slow" => {
            sleep(Duration::from_secs(10)).await;
            Ok(Reply(Quote { cents: 1 }))
        }
        sku => Ok(Reply(Quote {
            cents: 100 * sku.len() as u64,
        })),
    }
}

#[subscriber]
async fn total(ask: AskTotal, publisher: Publisher) -> Result<Reply<Total>, RequestError> {
    let mut cents = 0;
    for sku in ask.skus {
        cents += publisher.request(&Ask { sku }).await?.cents;
    }
    Ok(Reply(Total { cents }))
}

#[subscriber]
async fn remind(reminder: Reminder, world: State<World>) {
    let begun = world.begun.lock().unwrap().unwrap();
    let after = begun.elapsed();
    world.reminders.lock().unwrap().push((reminder.cart, after));
}

#[subscriber]
async fn plan_reminders(changed: CartChanged, reminders: Out<Reminder>) -> Publish<Reminder> {
    let cart = changed.cart;
    let early = Publish::new(Reminder { cart }).after(Duration::from_secs(10));
    reminders.send_with(early).unwrap();
    Publish::new(Reminder { cart: cart + 1 }).after(Duration::from_secs(20))
}

async fn app(world: &World) -> TestApp {
    app_with(world, Config::new()).await
}

async fn app_with(world: &World, config: Config) -> TestApp {
    world.begin();
    TestApp::new()
        .register::<quote>()
        .register::<total>()
        .register::<remind>()
        .register::<plan_reminders>()
        .state(world.clone())
        .config(config)
        .start()
        .await
}

fn ask(sku: &str) -> Ask {
    Ask { sku: sku.into() }
}

#[tokio::test(start_paused = true)]
async fn a_request_gets_its_typed_reply_also_from_within_a_handler() {
    let world = World::default();
    let app = app(&world).await;
    let publisher = app.publisher();
    let quote = publisher.request(&ask("tea")).await.unwrap();
    assert_eq!(quote, Quote { cents: 300 });
    let ask = AskTotal {
        skus: vec!["a".into(), "bb".into()],
    };
    let asked = Publish::new(ask).header("x-tenant", "acme");
    let total = publisher.request(asked).timeout(Duration::from_secs(1));
    assert_eq!(total.await.unwrap(), Total { cents: 300 });
    assert_eq!(world.calls(), 3);
    assert!(app.timeline().contains("replied by"), "{}", app.timeline());
    let metrics = app.metrics();
    let answered = [("broker", "main"), ("outcome", "answered")];
    assert_eq!(metrics.count(metrics::REQUEST_DURATION, &answered), 4);
    // Nobody asked for a reply: the handler runs, and the reply goes nowhere.
    app.publish(&ask_plain("milk")).await;
    app.settle().await;
    assert_eq!(world.calls(), 4);
}

fn ask_plain(sku: &str) -> Ask {
    ask(sku)
}

#[tokio::test(start_paused = true)]
async fn who_fails_for_good_answers_with_a_fault() {
    let world = World::default();
    let app = app(&world).await;
    let publisher = app.publisher();
    let error = publisher.request(&ask("unknown")).await.unwrap_err();
    assert_eq!(error.kind(), RequestErrorKind::Fault);
    assert!(!error.is_retryable() && !error.is_unknown());
    let fault = error.fault().unwrap();
    assert_eq!(
        (&*fault.reason, &*fault.error, &*fault.error_type),
        ("rejected", "no such article", "QuoteError::UnknownSku")
    );
    assert_eq!((&*fault.service, &*fault.handler), ("quotes", "quote"));
    assert_eq!(fault.attempts, 1);
    assert!(error.to_string().contains("`quotes.asked`"), "{error}");

    let error = publisher.request(&ask("down")).await.unwrap_err();
    let fault = error.fault().unwrap();
    assert_eq!((&*fault.reason, fault.attempts), ("retries_exhausted", 3));
    assert!(error.is_retryable());

    let error = publisher.request(&ask("withdrawn")).await.unwrap_err();
    assert_eq!(error.fault().unwrap().error, "no longer sold");
    app.settle().await;
    // A fault takes nothing away: what was given up is kept all the same.
    assert_eq!(app.dead_letters("quote").await.len(), 2);
    assert_eq!(world.calls(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_request_ends_in_time_and_its_late_reply_is_dropped() {
    let world = World::default();
    let app = app(&world).await;
    let publisher = app.publisher();
    let begun = Instant::now();
    let slow = publisher
        .request(&ask("slow"))
        .timeout(Duration::from_secs(2));
    let error = slow.await.unwrap_err();
    assert_eq!(begun.elapsed().as_secs(), 2);
    assert_eq!(error.kind(), RequestErrorKind::Timeout);
    assert!(error.is_timeout() && error.is_unknown() && error.is_retryable());
    app.advance(Duration::from_secs(20)).await;
    assert_eq!(app.metrics().sum(metrics::LATE_REPLIES, &[]), 1.0);
    assert_eq!(publisher.request(&ask("tea")).await.unwrap().cents, 300);

    // Without a limit of its own it is the broker's.
    let begun = Instant::now();
    let error = publisher.request(&ask("slow")).await.unwrap_err();
    assert!(error.is_timeout());
    assert_eq!(begun.elapsed().as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_nobody_waits_for_any_more_is_not_handled() {
    let world = World::default();
    let app = app(&world).await;
    app.pause("quote").await;
    let late = app.publisher();
    let late = late.request(&ask("tea")).timeout(Duration::from_secs(2));
    assert!(late.await.unwrap_err().is_timeout());
    app.advance(Duration::from_secs(2)).await;
    app.resume("quote").await;
    app.settle().await;
    assert_eq!(world.calls(), 0);
    let expired = [("handler", "quote")];
    assert_eq!(app.metrics().sum(metrics::EXPIRED_REQUESTS, &expired), 1.0);
    assert!(app.dead_letters("quote").await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn calls_end_at_once_when_the_connection_is_lost_and_the_next_one_is_answered() {
    let world = World::default();
    let app = app(&world).await;
    let publisher = app.publisher();
    let begun = Instant::now();
    let call = publisher
        .request(&ask("slow"))
        .timeout(Duration::from_secs(60));
    let cut = async {
        sleep(Duration::from_secs(1)).await;
        app.faults().disconnect(Duration::from_secs(3));
    };
    let (error, ()) = tokio::join!(call.into_future(), cut);
    let error = error.unwrap_err();
    assert_eq!(error.kind(), RequestErrorKind::ChannelLost);
    assert!(error.is_unknown() && error.is_retryable());
    assert_eq!(begun.elapsed().as_secs(), 1);
    let quote = publisher.request(&ask("tea")).await.unwrap();
    assert_eq!(quote.cents, 300);
    assert_eq!(begun.elapsed().as_secs(), 4);
}

#[tokio::test(start_paused = true)]
async fn as_many_calls_wait_as_may_and_no_more() {
    let world = World::default();
    let config = Config::new().with("brokers.main.requests_in_flight", 1);
    let app = app_with(&world, config).await;
    let publisher = app.publisher();
    let slow = ask("slow");
    let first = publisher.request(&slow).timeout(Duration::from_secs(30));
    let tea = ask("tea");
    let second = publisher.request(&tea).timeout(Duration::from_secs(1));
    let (first, second) = tokio::join!(first.into_future(), second.into_future());
    assert_eq!(first.unwrap().cents, 1);
    let error = second.unwrap_err();
    assert_eq!(error.kind(), RequestErrorKind::TooManyCalls);
    assert!(!error.is_unknown());
    assert!(error.to_string().contains("requests_in_flight"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_cannot_be_sent_says_why() {
    let world = World::default();
    let app = app(&world).await;
    let publisher = app.publisher();
    let nobody = Publish::new(ask("tea")).to("quotes.elsewhere");
    let error = publisher.request(nobody).await.unwrap_err();
    assert_eq!(error.kind(), RequestErrorKind::Publish);
    let source = std::error::Error::source(&error).unwrap();
    let source: &PublishError = source.downcast_ref().unwrap();
    assert_eq!(source.kind(), PublishErrorKind::Unroutable);
    let later = Publish::new(ask("tea")).after(Duration::from_secs(1));
    let error = publisher.request(later).await.unwrap_err();
    assert_eq!(error.kind(), RequestErrorKind::Unsupported);
    app.stop().await;
    let error = publisher.request(&ask("tea")).await.unwrap_err();
    assert_eq!(error.kind(), RequestErrorKind::Closed);
    assert_eq!(world.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn messages_for_later_come_when_they_are_due_however_they_are_sent() {
    let world = World::default();
    let app = app(&world).await;
    let after = |cart, seconds| Publish::new(Reminder { cart }).after(Duration::from_secs(seconds));
    app.publish(after(1, 30)).await;
    app.publish(after(2, 5)).await;
    app.publish(Publish::new(Reminder { cart: 3 }).at(std::time::UNIX_EPOCH))
        .await;
    app.publish(&CartChanged { cart: 10 }).await;
    app.settle().await;
    assert_eq!(world.reminders(), [(3, 0)], "its time had passed");
    app.advance(Duration::from_secs(9)).await;
    assert_eq!(world.reminders(), [(3, 0), (2, 5)]);
    app.advance(Duration::from_secs(40)).await;
    let all = [(3, 0), (2, 5), (10, 10), (11, 20), (1, 30)];
    assert_eq!(world.reminders(), all);
    assert!(app.timeline().contains("scheduled carts.reminder in 30s"));
}

#[tokio::test(start_paused = true)]
async fn a_message_for_later_outlives_the_service_and_can_be_taken_back() {
    let world = World::default();
    let app = app(&world).await;
    let publisher = app.publisher();
    let later = |cart| Publish::new(Reminder { cart }).after(Duration::from_secs(3_600));
    let kept = publisher.publish(later(1)).await.unwrap();
    let taken = publisher.publish(later(2)).await.unwrap();
    app.crash().await;
    app.restart().await;
    let publisher = app.publisher();
    assert!(publisher.cancel(&taken).await.unwrap());
    assert!(!publisher.cancel(&taken).await.unwrap());
    app.advance(Duration::from_secs(3_700)).await;
    assert_eq!(world.reminders(), [(1, 3_600)]);
    assert!(!publisher.cancel(&kept).await.unwrap());
}

#[derive(Debug, Message, Serialize, Deserialize)]
#[message(topic = "parcels.sent")]
struct Parcel {
    number: u32,
}

/// A post office that can be closed.
#[derive(Clone, Default)]
struct Post {
    closed: Arc<AtomicU32>,
    attempts: Arc<Mutex<Vec<(u32, u32)>>>,
}

impl Post {
    fn attempts(&self) -> usize {
        self.attempts.lock().unwrap().len()
    }
}

#[subscriber(
    concurrency = 1,
    retry(attempts = 20, first = "1ms", max = "1ms"),
    breaker(ratio = 0.5, minimum = 4, window = "30s", wait = "10s", max = "1m")
)]
async fn send(parcel: Parcel, post: State<Post>, meta: Meta) -> Result<(), QuoteError> {
    let attempt = (parcel.number, meta.attempt());
    post.attempts.lock().unwrap().push(attempt);
    match post.closed.load(Ordering::SeqCst) {
        0 => Ok(()),
        _ => Err(QuoteError::Down),
    }
}

#[tokio::test(start_paused = true)]
async fn a_breaker_stops_fetching_probes_and_goes_on() {
    let post = Post::default();
    let app = TestApp::new()
        .register::<send>()
        .state(post.clone())
        .start()
        .await;
    let health = || {
        let health = app.manager().health();
        let subscription = &health.subscriptions[0];
        (subscription.state.clone(), subscription.breaker)
    };
    post.closed.store(1, Ordering::SeqCst);
    for number in 0..10 {
        app.publish(&Parcel { number }).await;
    }
    app.advance(Duration::from_secs(5)).await;
    // Four attempts failed; from then on nothing is started, and nothing more of it counts.
    assert_eq!(post.attempts(), 4, "{}", app.timeline());
    assert_eq!(health(), (ConsumerState::Paused, CircuitState::Open));
    let open = |app: &TestApp| app.metrics().sum(metrics::BREAKER_OPEN, &[]);
    assert_eq!(open(&app), 1.0);
    // A probe that fails closes nothing.
    app.advance(Duration::from_secs(8)).await;
    assert_eq!(post.attempts(), 5, "{}", app.timeline());
    assert_eq!(health().1, CircuitState::Open);
    post.closed.store(0, Ordering::SeqCst);
    app.advance(Duration::from_secs(60)).await;
    assert_eq!(health(), (ConsumerState::Running, CircuitState::Closed));
    assert_eq!(open(&app), 0.0);
    app.settle().await;
    let attempts = post.attempts.lock().unwrap().clone();
    assert_eq!(attempts.len(), 15, "{}", app.timeline());
    // What was given back untouched comes as it was: every parcel but the probed ones first succeeds at
    // its first attempt.
    let untouched = attempts.iter().filter(|(_, attempt)| *attempt == 1);
    assert_eq!(untouched.count(), 10);
    assert!(app.dead_letters("send").await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_topology_is_printed_and_compared_without_starting_the_service() {
    let app = App::new(Config::new())
        .named_only()
        .register::<send>()
        .state(Post::default());
    let topology = runtime::topology(&app).unwrap();
    let text = topology.to_string();
    assert!(text.contains("broker `main` (memory)"), "{text}");
    assert!(text.contains("queue quotes.parcels.sent"), "{text}");
    let broker = topology.brokers().next().unwrap();
    let diff = broker.diff(Duration::from_secs(5)).await.unwrap();
    assert_eq!(diff.missing.len(), 1);
    assert!(broker.export().is_none());
}

#[derive(Debug, Message, Serialize, Deserialize)]
#[message(topic = "pebbles.thrown")]
struct Pebble {
    number: u32,
}

#[subscriber(concurrency = 4)]
async fn catch(_: Pebble, caught: State<Arc<AtomicU32>>) {
    sleep(Duration::from_millis(1)).await;
    caught.fetch_add(1, Ordering::SeqCst);
}

#[test]
fn a_runtime_that_goes_down_with_messages_waiting_is_not_held_up() {
    const LIMIT: Duration = Duration::from_secs(20);
    for _ in 0..40 {
        let mut threads = tokio::runtime::Builder::new_multi_thread();
        let threads = threads.worker_threads(1).enable_all().build().unwrap();
        let caught = Arc::new(AtomicU32::new(0));
        let app = App::new(Config::new()).named_only().register::<catch>();
        let app = app.state(Arc::clone(&caught));
        let running = threads.block_on(async {
            let running = app.launch().await.unwrap();
            running.ready(LIMIT).await.unwrap();
            let publisher = running.publisher();
            for number in 0..100 {
                publisher.publish(&Pebble { number }).await.unwrap();
            }
            while caught.load(Ordering::SeqCst) < 5 {
                tokio::task::yield_now().await;
            }
            running
        });
        // As where a program ends without asking the app to.
        let begun = std::time::Instant::now();
        threads.shutdown_timeout(LIMIT);
        assert!(begun.elapsed() < LIMIT, "its threads did not end");
        drop(running);
    }
}
