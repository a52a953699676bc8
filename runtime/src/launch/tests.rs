use std::collections::VecDeque;
use std::sync::Mutex;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::*;
use crate::error::CommunicationErrorKind;
use crate::handling::{Bind, Handler, Outcome, PublishError, PublishErrorKind, State};
use crate::message::{Contract, Headers, Incoming, Location, Outgoing};
use crate::messaging::{
    BrokerError, BrokerErrorKind, BrokerHealth, Capabilities, Connected, ConnectionState, Consumer,
    ConsumerState, DeadLetterStore, Delivery, DurabilityConcern, SubscriberOptions, Subscription,
    Topology,
};
use crate::registry::{ServiceIdentity, Source, SubscriberDescriptor};

const HERE: Location = Location {
    file: "src/main.rs",
    line: 1,
    column: 1,
};

static BILLING: ServiceIdentity =
    ServiceIdentity::new("billing", "billing", "1.2.0", "billing", true, HERE);
static PLACED: Contract = Contract::new("OrderPlaced", "orders.placed", HERE);
static ON_PLACED: [&Contract; 1] = [&PLACED];

/// What the handler saw, and what lets it go on.
struct Desk {
    seen: mpsc::Sender<String>,
    go_on: tokio::sync::Semaphore,
}

fn bind(bind: &mut Bind<'_>) -> Option<Handler> {
    let desk = <State<Desk> as crate::handling::Extract>::prepare(bind)?;
    Some(Handler::one(move |incoming: Arc<Incoming>, _| {
        let desk = desk.clone();
        async move {
            let body = String::from_utf8_lossy(&incoming.body).into_owned();
            desk.seen.send(body).await.unwrap();
            desk.go_on.acquire().await.unwrap().forget();
            Outcome::done()
        }
    }))
}

static CHARGE: SubscriberDescriptor = SubscriberDescriptor::new(
    "charge",
    "billing",
    &BILLING,
    Source::Contracts(&ON_PLACED),
    SubscriberOptions::UNSET,
    bind,
    HERE,
);

struct Charge;

impl Subscriber for Charge {
    const DESCRIPTOR: &'static SubscriberDescriptor = &CHARGE;
}

const SOON: Duration = Duration::from_secs(10);

/// An app with one handler that is allowed to finish `free` messages.
fn app(free: usize) -> (App, mpsc::Receiver<String>) {
    app_with(Config::new(), free)
}

fn app_with(config: Config, free: usize) -> (App, mpsc::Receiver<String>) {
    let (seen, seeing) = mpsc::channel(16);
    let go_on = tokio::sync::Semaphore::new(free);
    let app = App::new(config)
        .named_only()
        .register::<Charge>()
        .state(Desk { seen, go_on })
        .seed(1);
    (app, seeing)
}

async fn send(running: &Running, body: &'static str) -> Result<(), PublishError> {
    let publisher = running.publisher();
    let sent = publisher.publish_raw("orders.placed", body, Headers::new());
    sent.await.map(|_| ())
}

#[tokio::test]
async fn an_app_starts_handles_pauses_and_goes_down() {
    let (app, mut seeing) = app(16);
    let turns = Arc::new(Mutex::new(Vec::new()));
    let note = |turn: &'static str| {
        let turns = Arc::clone(&turns);
        move |running: Running| async move {
            let ready = running.health().ready;
            turns.lock().unwrap().push((turn, ready));
        }
    };
    let app = app.on_ready(note("ready")).on_drain(note("drain"));
    let running = app.launch().await.unwrap();
    running.ready(SOON).await.unwrap();
    let health = running.health();
    assert_eq!((health.declared, health.running()), (1, 1));
    assert!(health.live && !health.draining);
    assert_eq!(health.brokers[0].kind, "memory");

    send(&running, "one").await.unwrap();
    assert_eq!(seeing.recv().await.as_deref(), Some("one"));

    let error = running.pause("chrage").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "no subscriber `chrage` is running; did you mean `charge`?"
    );
    running.pause("charge").await.unwrap();
    let health = running.health();
    assert_eq!(health.subscriptions[0].state, ConsumerState::Paused);
    assert!(health.ready, "a pause by hand is not an outage");
    send(&running, "two").await.unwrap();
    running.resume("charge").await.unwrap();
    assert_eq!(seeing.recv().await.as_deref(), Some("two"));

    let waiting = tokio::spawn({
        let running = running.clone();
        async move { running.wait().await }
    });
    running.stop_within(SOON).await;
    waiting.await.unwrap();
    let health = running.health();
    assert!(!health.live && !health.ready && health.draining);
    assert_eq!(*turns.lock().unwrap(), [("ready", true), ("drain", false)]);
    let error = send(&running, "three").await.unwrap_err();
    assert_eq!(error.kind(), PublishErrorKind::Closed);
    let error = running.ready(SOON).await.unwrap_err();
    assert_eq!(error.kind(), CommunicationErrorKind::Shutdown);
}

#[tokio::test]
async fn what_is_in_flight_is_finished_before_the_end() {
    let (app, mut seeing) = app(0);
    let desk = app.wiring.states.get::<Desk>().unwrap();
    let running = app.launch().await.unwrap();
    running.ready(SOON).await.unwrap();
    send(&running, "one").await.unwrap();
    assert_eq!(seeing.recv().await.as_deref(), Some("one"));
    let stopping = tokio::spawn({
        let running = running.clone();
        async move { running.stop_within(SOON).await }
    });
    while !running.health().draining {
        tokio::task::yield_now().await;
    }
    assert!(!stopping.is_finished());
    desk.go_on.add_permits(1);
    stopping.await.unwrap();
    assert_eq!(running.health().subscriptions[0].in_flight, 0);
}

#[tokio::test]
async fn a_hook_that_panics_or_hangs_does_not_keep_the_app_up() {
    let (app, _seeing) = app(0);
    let running = app
        .on_drain(|_| async { panic!("on purpose") })
        .launch()
        .await
        .unwrap();
    running.stop_within(SOON).await;
    assert!(!running.health().live);

    let (app, _seeing) = self::app(0);
    let app = app.on_drain(|_| std::future::pending());
    let running = app.launch().await.unwrap();
    running.stop_within(Duration::from_millis(50)).await;
    assert!(!running.health().live);
}

#[tokio::test]
async fn start_returns_when_the_app_is_stopped_from_inside() {
    let (app, _seeing) = app(0);
    let app = app
        .handle_signals(false)
        .on_ready(|running: Running| async move { running.stop_within(SOON).await });
    crate::runtime::start(app).await.unwrap();
}

#[tokio::test]
async fn a_plan_that_fails_starts_nothing_and_check_says_the_same() {
    let app = || App::new(Config::new()).named_only().register::<Charge>();
    let expected = "1 wiring problem in service `billing` (nothing was started)\n  \
                    src/main.rs:1  charge  needs `State<Desk>`, and the app has none\n                         \
                    help: add `.state(Desk { .. })` to the app";
    let report = crate::runtime::check(&app()).unwrap_err();
    assert_eq!(format!("{report:?}"), expected);
    let error = app().launch().await.unwrap_err();
    assert_eq!(error.kind(), CommunicationErrorKind::Plan);
    assert_eq!(format!("{:?}", Report::from(error)), expected);
    assert!(self::app(0).0.check().is_ok());
}

#[tokio::test]
async fn an_app_is_started_once() {
    let (app, _seeing) = app(0);
    let manager = CommunicationManager::new(app).unwrap();
    assert!(!manager.health().ready);
    manager.initialize().await.unwrap();
    let error = manager.initialize().await.unwrap_err();
    assert_eq!(error.kind(), CommunicationErrorKind::Shutdown);
    assert!(manager.message_broker("main").is_some());
    assert!(manager.message_broker("other").is_none());
    manager.shutdown(Instant::now() + SOON).await;
}

#[tokio::test]
async fn what_brokers_refuse_for_good_is_one_error_and_all_is_closed() {
    let refused = |name: &str| {
        let name: Arc<str> = name.into();
        let error = BrokerError::new(BrokerErrorKind::Authentication, &name, "wrong password");
        Scripted::new(&name, [Err(error)])
    };
    let (one, two) = (refused("main"), refused("audit"));
    let fine = Scripted::new("third", [Ok(Connected::Yes)]);
    let (app, _seeing) = app(0);
    let app = app.broker(one).broker(two).broker(fine.clone());
    let error = app.launch().await.unwrap_err();
    assert_eq!(error.kind(), CommunicationErrorKind::MessageBroker);
    assert!(!error.is_retryable());
    assert_eq!(
        error.to_string(),
        "2 errors of brokers\n  broker `audit`: wrong password\n  broker `main`: wrong password"
    );
    assert_eq!(fine.health_check().state, ConnectionState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_cannot_be_reached_keeps_the_app_from_being_ready_and_nothing_else() {
    let broker = Scripted::new("main", [Ok(Connected::Retrying)]);
    let (app, _seeing) = app(0);
    let running = app.broker(broker.clone()).launch().await.unwrap();
    let error = running.ready(Duration::from_secs(1)).await.unwrap_err();
    assert!(error.is_timeout());
    assert_eq!(
        error.to_string(),
        "not ready: broker `main` is connecting: connection refused"
    );
    assert!(running.health().live);
    broker.set(ConnectionState::Ready);
    running.ready(SOON).await.unwrap();
    running.stop_within(SOON).await;
}

#[tokio::test]
async fn where_durability_is_required_the_embedded_broker_does_not_start() {
    let config = Config::new()
        .with("brokers.main.kind", "memory")
        .with("brokers.main.require_durable", true);
    let error = app_with(config, 0).0.launch().await.unwrap_err();
    assert_eq!(error.kind(), CommunicationErrorKind::MessageBroker);
    assert!(!error.is_retryable());
    assert_eq!(
        error.to_string(),
        "broker `main`: it can lose messages that it acknowledged, which \
         `brokers.main.require_durable` forbids: the embedded broker does not outlive the process: \
         what it holds ends with it; give `brokers.main.url` a server's address"
    );
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_comes_later_is_asked_later_whether_it_is_durable() {
    let config = || Config::new().with("brokers.main.require_durable", true);
    for loses in [false, true] {
        let broker = Scripted::new("main", [Ok(Connected::Retrying)]);
        if !loses {
            broker.concerns.lock().unwrap().clear();
        }
        let (app, _seeing) = app_with(config(), 0);
        let running = app.broker(broker.clone()).launch().await.unwrap();
        broker.set(ConnectionState::Ready);
        assert_eq!(
            running.health().obstacles(),
            ["broker `main`: it is not known yet whether acknowledged messages can be lost"]
        );
        let ready = running.ready(Duration::from_secs(5)).await;
        assert_eq!(
            ready.map_err(|error| error.to_string()),
            if loses {
                Err(
                    "not ready: broker `main`: it can lose messages that it acknowledged, which \
                     `brokers.main.require_durable` forbids: nothing is kept; buy a disk"
                        .to_owned(),
                )
            } else {
                Ok(())
            }
        );
        running.stop_within(SOON).await;
    }
}

#[tokio::test]
async fn what_can_be_lost_is_no_error_unless_durability_is_required() {
    let broker = Scripted::new("main", [Ok(Connected::Yes)]);
    let (app, _seeing) = app(0);
    let running = app.broker(broker).launch().await.unwrap();
    running.ready(SOON).await.unwrap();
    running.stop_within(SOON).await;
    let required = Config::new().with("brokers.main.require_durable", true);
    let broker = Scripted::new("main", [Ok(Connected::Yes)]);
    broker.concerns.lock().unwrap()[0].weight = crate::messaging::DurabilityWeight::Note;
    let (app, _seeing) = app_with(required, 0);
    let running = app.broker(broker).launch().await.unwrap();
    running.ready(SOON).await.unwrap();
    running.stop_within(SOON).await;
}

#[tokio::test]
async fn a_publish_under_way_is_confirmed_before_the_connection_closes() {
    let broker = Scripted::new("main", [Ok(Connected::Yes)]);
    let (app, _seeing) = app(0);
    let running = app.broker(broker.clone()).launch().await.unwrap();
    let publishing = tokio::spawn({
        let running = running.clone();
        async move { send(&running, "one").await }
    });
    broker.publishing.notified().await;
    let stopping = tokio::spawn({
        let running = running.clone();
        async move { running.stop_within(SOON).await }
    });
    let refused = async {
        loop {
            // One that is taken stays under way, so it is asked again rather than waited for.
            let late = tokio::time::timeout(Duration::ZERO, send(&running, "late")).await;
            if let Ok(Err(error)) = late {
                break error.kind();
            }
            tokio::task::yield_now().await;
        }
    };
    let refused = tokio::time::timeout(SOON, refused).await;
    assert_eq!(refused, Ok(PublishErrorKind::Closed));
    assert_eq!(broker.health_check().state, ConnectionState::Ready);
    broker.confirm.add_permits(1);
    publishing.await.unwrap().unwrap();
    stopping.await.unwrap();
    assert_eq!(broker.health_check().state, ConnectionState::Closed);
}

/// A broker whose connection does what the test says.
struct Scripted {
    /// Told of each publish.
    publishing: tokio::sync::Notify,
    /// Lets publishes be confirmed.
    confirm: tokio::sync::Semaphore,
    name: Arc<str>,
    connects: Mutex<VecDeque<Result<Connected, BrokerError>>>,
    state: Mutex<ConnectionState>,
    /// What it tells once it is connected.
    concerns: Mutex<Vec<DurabilityConcern>>,
}

impl Scripted {
    fn new(
        name: &str,
        connects: impl IntoIterator<Item = Result<Connected, BrokerError>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            publishing: tokio::sync::Notify::new(),
            confirm: tokio::sync::Semaphore::new(0),
            name: name.into(),
            connects: Mutex::new(connects.into_iter().collect()),
            state: Mutex::new(ConnectionState::Disconnected),
            concerns: Mutex::new(vec![DurabilityConcern::loss(
                "nothing is kept",
                "buy a disk",
            )]),
        })
    }

    fn set(&self, state: ConnectionState) {
        *self.state.lock().unwrap() = state;
    }
}

struct Idle(mpsc::Sender<Delivery>);

impl Consumer for Idle {
    fn pause(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }

    fn resume(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }

    fn state(&self) -> ConsumerState {
        assert!(self.0.capacity() > 0);
        ConsumerState::Running
    }
}

impl MessageBroker for Scripted {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "scripted"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::NONE
    }

    fn topology(&self, _: &[Arc<Subscription>]) -> Topology {
        Topology::default()
    }

    fn connect(&self) -> BoxFuture<'_, Result<Connected, BrokerError>> {
        let outcome = self.connects.lock().unwrap().pop_front().unwrap();
        self.set(match &outcome {
            Ok(Connected::Yes) => ConnectionState::Ready,
            Ok(Connected::Retrying) => ConnectionState::Connecting,
            Err(_) => ConnectionState::Failed,
        });
        Box::pin(async { outcome })
    }

    fn apply<'a>(&'a self, _: &'a Topology) -> BoxFuture<'a, Result<(), BrokerError>> {
        Box::pin(async { Ok(()) })
    }

    fn durability<'a>(
        &'a self,
        subscriptions: &'a [Arc<Subscription>],
    ) -> BoxFuture<'a, Result<Vec<DurabilityConcern>, BrokerError>> {
        let labels: Vec<_> = subscriptions.iter().map(|one| &*one.label).collect();
        let expected: &[&str] = if &*self.name == "main" {
            &["billing.orders.placed"]
        } else {
            &[]
        };
        assert_eq!(labels, expected);
        let told = if self.health_check().state == ConnectionState::Ready {
            Ok(self.concerns.lock().unwrap().clone())
        } else {
            let kind = BrokerErrorKind::Unreachable;
            Err(BrokerError::new(kind, &self.name, "not connected"))
        };
        Box::pin(async { told })
    }

    fn publish(&self, _: Outgoing) -> BoxFuture<'_, Result<(), PublishError>> {
        Box::pin(async {
            self.publishing.notify_one();
            self.confirm.acquire().await.unwrap().forget();
            Ok(())
        })
    }

    fn subscribe(
        &self,
        _: Arc<Subscription>,
        deliveries: mpsc::Sender<Delivery>,
    ) -> BoxFuture<'_, Result<Arc<dyn Consumer>, BrokerError>> {
        Box::pin(async { Ok(Arc::new(Idle(deliveries)) as Arc<dyn Consumer>) })
    }

    fn disconnect(&self, _: Instant) -> BoxFuture<'_, ()> {
        self.set(ConnectionState::Closed);
        Box::pin(async {})
    }

    fn health_check(&self) -> BrokerHealth {
        let state = *self.state.lock().unwrap();
        let error = (state == ConnectionState::Connecting).then(|| "connection refused".to_owned());
        BrokerHealth::new(state).with_error(error)
    }

    fn dead_letters(&self) -> Option<&dyn DeadLetterStore> {
        None
    }
}
