//! What a case works with: a broker under test, apps that run on it, a look from outside.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use interline::config::{Config, Value};
use interline::handling::Publishable;
use interline::registry::Subscriber;
use interline::{App, Headers, Running};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use crate::bench::{Bench, PLACES, Place, Seen, Trouble};
use crate::once::Once;

/// How a case ends.
pub(crate) type Outcome = Result<(), Trouble>;
/// A case.
pub(crate) type CaseFn = fn(Arc<World>) -> BoxFuture<'static, Outcome>;

/// How long something may take that has to happen.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);
/// How long nothing may happen where nothing is to happen.
pub(crate) const QUIET: Duration = Duration::from_millis(400);

/// Names the cases of a file.
macro_rules! cases {
    ($($case:ident),+ $(,)?) => {
        /// The cases of this file.
        pub(crate) const CASES: &[(&str, $crate::world::CaseFn)] =
            &[$((stringify!($case), |world| Box::pin($case(world)))),+];
    };
}
pub(crate) use cases;

/// One place on a broker with everything that a case does there.
pub(crate) struct World {
    place: &'static Place,
    pub(crate) bench: Arc<dyn Bench>,
}

impl World {
    pub(crate) async fn open(place: &'static Place) -> Result<Self, Trouble> {
        let bench = (place.open)().await?;
        Ok(Self { place, bench })
    }

    /// A place that the case has opened by itself.
    pub(crate) fn on(kind: &str, bench: Arc<dyn Bench>) -> Self {
        let place = PLACES.iter().find(|place| place.kind == kind);
        Self {
            place: place.expect("a kind of broker"),
            bench,
        }
    }

    /// A second place on the same kind of broker.
    pub(crate) async fn another(&self) -> Result<Self, Trouble> {
        Self::open(self.place).await
    }

    /// Whether a subscriber can listen to a template.
    pub(crate) fn has_templates(&self) -> bool {
        self.place.kind != "redis"
    }

    /// Whether a group shares partitions, which are one for each topic unless a case says otherwise.
    pub(crate) fn deals_out_partitions(&self) -> bool {
        self.place.kind == "kafka"
    }

    /// Whether time is virtual, so that waiting costs nothing.
    pub(crate) fn is_virtual(&self) -> bool {
        self.place.server.is_none()
    }

    /// An app to be, on this place as its broker `main`.
    pub(crate) fn app(&self, instance: &str) -> Setup {
        Setup {
            instance: instance.to_owned(),
            config: self.bench.configure(Config::new(), "main"),
            benches: vec![("main", Arc::clone(&self.bench))],
            build: Box::new(App::named_only),
            virtual_time: self.is_virtual(),
            once: self.place.kind == "redis-pubsub",
        }
    }

    /// Publishes as somebody else.
    pub(crate) async fn publish(&self, topic: &str, body: impl Into<Bytes>, headers: Headers) {
        let published = self.bench.publish(topic, body.into(), headers);
        let published = timeout(LIMIT, published).await;
        published.expect("in time").expect("it is published");
    }

    /// Publishes a JSON body as somebody else, with nothing but its content type.
    pub(crate) async fn publish_json(&self, topic: &str, body: &str) {
        let headers = [("content-type", "application/json")].into_iter().collect();
        self.publish(topic, body.to_owned(), headers).await;
    }

    /// Everything that is published to a topic from now on.
    pub(crate) async fn listen(&self, topic: &str) -> Result<Listener, Trouble> {
        Ok(Listener(self.bench.listen(topic).await?))
    }

    /// Takes out the dead letters of a subscription; it has exactly so many.
    pub(crate) async fn dead(&self, group: &str, topic: &str, count: usize) -> Vec<Seen> {
        let begun = Instant::now();
        let mut letters = Vec::new();
        while letters.len() < count {
            letters.extend(self.bench.take_dead(group, topic).await.expect("readable"));
            let found = letters.len();
            assert!(begun.elapsed() < LIMIT, "{found} of {count} dead letters");
            sleep(Duration::from_millis(20)).await;
        }
        letters.extend(self.bench.take_dead(group, topic).await.expect("readable"));
        assert_eq!(letters.len(), count, "{letters:#?}");
        letters
    }

    /// Waits until so many messages of a subscription are left for somebody to read.
    pub(crate) async fn until_left(&self, group: &str, topic: &str, count: usize) {
        let begun = Instant::now();
        loop {
            let left = self.bench.left(group, topic).await.expect("counted");
            if left == count {
                return;
            }
            assert!(begun.elapsed() < LIMIT, "{left} are left, not {count}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends a world in which everything went well.
    pub(crate) async fn close(&self) -> Outcome {
        self.bench.close().await
    }
}

/// Waits until something holds.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < LIMIT, "never: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// What a foreign client hears of a topic.
pub(crate) struct Listener(mpsc::Receiver<Seen>);

impl Listener {
    pub(crate) async fn next(&mut self) -> Seen {
        let next = timeout(LIMIT, self.0.recv()).await;
        next.expect("a message in time").expect("it is connected")
    }

    pub(crate) async fn take(&mut self, count: usize) -> Vec<Seen> {
        let mut taken = Vec::with_capacity(count);
        while taken.len() < count {
            taken.push(self.next().await);
        }
        taken
    }

    /// Nothing comes for a while.
    pub(crate) async fn quiet(&mut self) {
        if let Ok(Some(seen)) = timeout(QUIET, self.0.recv()).await {
            panic!("`{}` came", seen.text());
        }
    }
}

/// An app to be.
pub(crate) struct Setup {
    instance: String,
    config: Config,
    benches: Vec<(&'static str, Arc<dyn Bench>)>,
    build: Box<dyn FnOnce(App) -> App + Send>,
    virtual_time: bool,
    /// Whether the broker delivers at most once, which its subscribers have to say.
    once: bool,
}

impl Setup {
    /// Sets a key of the configuration.
    pub(crate) fn set(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.config = self.config.with(key, value);
        self
    }

    /// Has a second broker.
    pub(crate) fn broker(mut self, name: &'static str, world: &World) -> Self {
        self.config = world.bench.configure(self.config, name);
        self.benches.push((name, Arc::clone(&world.bench)));
        self
    }

    /// Anything else that an app can be told.
    pub(crate) fn with(mut self, more: impl FnOnce(App) -> App + Send + 'static) -> Self {
        let build = self.build;
        self.build = Box::new(move |app| more(build(app)));
        self
    }

    /// Runs this subscriber.
    pub(crate) fn register<S: Subscriber>(self) -> Self {
        if self.once {
            return self.with(App::register::<Once<S>>);
        }
        self.with(App::register::<S>)
    }

    /// Runs this subscriber on a topic that is known only now.
    pub(crate) fn subscribe<S: Subscriber + Send>(self, topic: &str, subscriber: S) -> Self {
        let (topic, once) = (topic.to_owned(), self.once);
        self.with(move |app| match once {
            true => app.subscribe(topic, Once::of(subscriber)),
            false => app.subscribe(topic, subscriber),
        })
    }

    /// Gives the handlers a value.
    pub(crate) fn state<S: Send + Sync + 'static>(self, value: S) -> Self {
        self.with(|app| app.state(value))
    }

    /// The app, with everything that it was told.
    fn app(self) -> App {
        let Self {
            instance,
            config,
            benches,
            build,
            ..
        } = self;
        let mut app = build(App::new(config)).instance(instance.as_str());
        for (broker, bench) in &benches {
            app = bench.install(app, broker, &instance);
        }
        app
    }

    /// Starts it, and waits until it is ready.
    pub(crate) async fn start(self) -> Process {
        let process = self.launch().await;
        process.running.ready(LIMIT).await.expect("it is ready");
        process
    }

    /// Starts it.
    pub(crate) async fn launch(self) -> Process {
        let instance = self.instance.clone();
        let benches = self.benches.iter().map(|(_, bench)| Arc::clone(bench));
        let benches = benches.collect();
        // Of its own, so that a kill takes everything: tasks, timers, sockets. Where time is
        // virtual there is only one clock.
        let runtime = (!self.virtual_time).then(|| {
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .expect("a runtime")
        });
        let app = self.app();
        let launched = match &runtime {
            None => app.launch().await,
            Some(runtime) => runtime.spawn(app.launch()).await.expect("no panic"),
        };
        Process {
            running: launched.expect("it starts"),
            instance,
            benches,
            runtime,
        }
    }
}

/// A running app, as its operating system sees it.
pub(crate) struct Process {
    pub(crate) running: Running,
    instance: String,
    benches: Vec<Arc<dyn Bench>>,
    runtime: Option<Runtime>,
}

impl Process {
    /// Publishes, and has it confirmed.
    pub(crate) async fn publish(&self, message: impl Publishable) {
        let published = self.running.publisher().publish(message).await;
        published.expect("it is published");
    }

    /// Goes down in order.
    pub(crate) async fn stop(self) {
        self.running.stop_within(LIMIT).await;
    }

    /// Dies as by SIGKILL.
    pub(crate) fn kill(self) {
        drop(self);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        for bench in &self.benches {
            bench.killed(&self.instance);
        }
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
