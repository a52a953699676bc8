//! Services whose instances come and go, found in a file.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use interline::Running;
use interline::http::CallErrorKind;
use interline::prelude::*;
use interline::testing::{ScriptedDiscovery, TestApp};
use tempfile::TempDir;

use crate::server::{Reply, Server};
use crate::shop::{ITEM, Shop, ShopClient, item};

/// The file in which the service is found.
struct Registry(TempDir);

impl Registry {
    fn new() -> Self {
        Self(TempDir::new().expect("a directory"))
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("endpoints.json")
    }

    fn write(&self, text: &str) {
        let new = self.0.path().join("new");
        fs::write(&new, text).expect("a file");
        fs::rename(new, self.path()).expect("a name");
    }

    fn list(&self, urls: &[String]) {
        self.write(&format!("{{\"shop\": {urls:?}}}"));
    }

    async fn till(&self, lines: &str) -> Running {
        let path = self.path();
        let toml = format!(
            "service.name = \"till\"\n[discovery.local]\nkind = \"file\"\npath = {path:?}\n\
             poll = \"20ms\"\n[services.shop.discovery]\n{lines}\n"
        );
        let config = Config::from_toml("interline.toml", &toml).expect("TOML");
        let app = App::new(config).named_only().publish_only();
        app.launch().await.expect("a sound wiring")
    }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "not within 30 s: {what}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn reply(number: usize) -> impl Fn(&crate::server::Seen) -> Reply {
    move |_| Reply::json(ITEM).after(Duration::from_millis(number as u64 % 3))
}

/// Makes calls until told otherwise; gives how many, and those that failed.
struct Callers {
    stop: Arc<AtomicBool>,
    made: Arc<AtomicU64>,
    tasks: tokio::task::JoinSet<Vec<String>>,
}

impl Callers {
    fn start(shop: &ShopClient) -> Self {
        let mut this = Self {
            stop: Arc::default(),
            made: Arc::default(),
            tasks: tokio::task::JoinSet::new(),
        };
        for _ in 0..8 {
            let (stop, made) = (Arc::clone(&this.stop), Arc::clone(&this.made));
            let shop = shop.clone();
            this.tasks.spawn(async move {
                let mut failed = Vec::new();
                while !stop.load(Ordering::SeqCst) {
                    match shop.item("7").await {
                        Ok(found) => assert_eq!(found, item()),
                        Err(error) => failed.push(error.to_string()),
                    }
                    made.fetch_add(1, Ordering::SeqCst);
                }
                failed
            });
        }
        this
    }

    /// Waits for more calls.
    async fn more(&self, calls: u64) {
        let until_made = self.made.load(Ordering::SeqCst) + calls;
        until("more calls", || {
            self.made.load(Ordering::SeqCst) >= until_made
        })
        .await;
    }

    async fn finish(self) -> (u64, Vec<String>) {
        self.stop.store(true, Ordering::SeqCst);
        let failed = self.tasks.join_all().await.concat();
        (self.made.load(Ordering::SeqCst), failed)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_of_all_instances_costs_no_idempotent_call() {
    let registry = Registry::new();
    let mut servers = Vec::new();
    for number in 0..4 {
        servers.push(Server::start(reply(number)).await);
    }
    let urls = |servers: &[Server]| servers.iter().map(Server::url).collect::<Vec<_>>();
    registry.list(&urls(&servers));
    let running = registry.till("").await;
    let shop: ShopClient = running.client().expect("a configured service");
    let callers = Callers::start(&shop);
    callers.more(50).await;
    for number in 0..12 {
        let new = Server::start(reply(number)).await;
        servers.push(new);
        let old = servers.remove(0);
        registry.list(&urls(&servers));
        // Half of the time as it should be done: nobody calls the old one any more when it ends. And
        // half of the time with calls in flight, and before anybody has read the file.
        let mut old = Some(old);
        if number % 2 == 1 {
            old = None;
        }
        let fresh = servers.last().expect("one");
        until("calls at the new one", || fresh.count() > 0).await;
        drop(old);
        callers.more(100).await;
    }
    let (made, failed) = callers.finish().await;
    assert_eq!(failed, [""; 0], "of {made} calls");
    assert!(made >= 1_200, "{made}");
    running.stop_within(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_broken_file_keeps_the_last_answer_and_says_so() {
    let registry = Registry::new();
    let (one, two) = (Server::start(reply(0)).await, Server::start(reply(0)).await);
    registry.list(&[one.url()]);
    let running = registry.till("").await;
    let shop: ShopClient = running.client().expect("a configured service");
    shop.item("7").await.unwrap();
    let error = || running.health().services[0].sources[0].error.clone();
    for (text, why) in [
        ("{\"shop\": [", "EOF while parsing a list"),
        (
            "{\"shops\": []}",
            "does not name the service `shop` (there is `shops`)",
        ),
        ("{\"shop\": [\"localhost:80\"]}", "`localhost:80` has"),
    ] {
        registry.write(text);
        until(why, || error().is_some_and(|error| error.contains(why))).await;
        shop.item("7").await.unwrap();
    }
    fs::remove_file(registry.path()).unwrap();
    let why = "cannot be read";
    until(why, || error().is_some_and(|error| error.contains(why))).await;
    assert_eq!(one.count(), 4);
    let health = running.health();
    assert!(health.ready && health.services[0].resolved, "{health:?}");
    assert_eq!(health.services[0].endpoints, 1);
    registry.list(&[two.url()]);
    until("the other one", || error().is_none()).await;
    while two.count() == 0 {
        shop.item("7").await.unwrap();
    }
    running.stop_within(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn calls_wait_for_the_first_answer_and_no_longer() {
    let registry = Registry::new();
    let running = registry.till("first_answer = \"200ms\"").await;
    let shop: ShopClient = running.client().expect("a configured service");
    let begun = Instant::now();
    let error = shop.item("7").await.unwrap_err();
    assert!(begun.elapsed() >= Duration::from_millis(200));
    assert_eq!(
        (error.kind(), error.attempts()),
        (CallErrorKind::ServiceDiscovery, 0)
    );
    let text = error.to_string();
    assert!(
        text.contains("no endpoint of the service is known: `local` "),
        "{text}"
    );
    assert!(text.contains("endpoints.json cannot be read"), "{text}");
    assert!(running.health().ready);
    let server = Server::start(reply(0)).await;
    let (answer, ()) = tokio::join!(shop.item("7"), async { registry.list(&[server.url()]) });
    assert_eq!(answer.unwrap(), item());
    running.stop_within(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn an_empty_list_is_believed_after_a_while() {
    let registry = Registry::new();
    let server = Server::start(reply(0)).await;
    registry.list(&[server.url()]);
    let running = registry.till("patience = \"300ms\"").await;
    let shop: ShopClient = running.client().expect("a configured service");
    shop.item("7").await.unwrap();
    let begun = Instant::now();
    registry.list(&[]);
    let error = loop {
        if let Err(error) = shop.item("7").await {
            break error;
        }
    };
    assert!(
        begun.elapsed() >= Duration::from_millis(300),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(error.kind(), CallErrorKind::ServiceDiscovery);
    assert!(
        error
            .to_string()
            .contains("`local` says that there is none"),
        "{error}"
    );
    registry.list(&[server.url()]);
    until("calls again", || {
        running.health().services[0].endpoints == 1
    })
    .await;
    shop.item("7").await.unwrap();
    running.stop_within(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_of_ten_thousand_is_swapped_under_load_without_a_failed_call() {
    let registry = Registry::new();
    // No connection is kept, so there are never as many as there are addresses.
    let server =
        Server::start_everywhere(|_| Reply::json(ITEM).header("connection", "close")).await;
    let urls = |net: usize, count: usize| {
        let host = |number: usize| format!("127.{net}.{}.{}", number / 250, 1 + number % 250);
        let url = |number| format!("http://{}:{}", host(number), server.port());
        (0..count).map(url).collect::<Vec<_>>()
    };
    registry.list(&urls(1, 2));
    let running = registry.till("").await;
    let shop: ShopClient = running.client().expect("a configured service");
    let callers = Callers::start(&shop);
    callers.more(20).await;
    let size = || running.health().services[0].endpoints;
    for net in [1, 2, 1] {
        registry.list(&urls(net, 10_000));
        until("ten thousand", || size() == 10_000).await;
        callers.more(50).await;
        registry.list(&urls(net, 2));
        until("two", || size() == 2).await;
        callers.more(50).await;
    }
    let (made, failed) = callers.finish().await;
    assert_eq!(failed, [""; 0], "of {made} calls");
    running.stop_within(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_script_says_where_services_are() {
    let discovery = ScriptedDiscovery::new();
    let (one, two) = (Server::start(reply(0)).await, Server::start(reply(0)).await);
    discovery.endpoints("shop", [one.url()]);
    let app = TestApp::new()
        .config(Config::new().with("service.name", "till"))
        .discovery(&discovery)
        .publish_only()
        .start()
        .await;
    let shop: ShopClient = app.client();
    shop.item("7").await.unwrap();
    discovery.endpoints("shop", [one.url(), two.url()]);
    app.until_endpoints("shop", 2).await;
    discovery.fail("shop", "the registry is away");
    discovery.endpoints("shop", [two.url()]);
    app.until_endpoints("shop", 1).await;
    let before = one.count();
    for _ in 0..10 {
        shop.item("7").await.unwrap();
    }
    assert_eq!((before, one.count(), two.count()), (1, 1, 10));
    // The next process asks anew.
    app.crash().await;
    app.restart().await;
    app.client::<ShopClient>().item("7").await.unwrap();
    assert_eq!(two.count(), 11);
}

#[tokio::test]
async fn a_script_stands_in_for_the_backends_of_the_configuration() {
    let config = Config::from_toml(
        "interline.toml",
        "service.name = \"till\"\n[discovery.local]\nkind = \"file\"\npath = \"/nowhere\"\n\
         [services.shop.discovery]\nfirst_answer = \"50ms\"",
    );
    let discovery = ScriptedDiscovery::new();
    let app = TestApp::new()
        .config(config.expect("TOML"))
        .discovery(&discovery)
        .publish_only()
        .start()
        .await;
    let shop: ShopClient = app.client();
    let error = shop.item("7").await.unwrap_err();
    assert!(
        error.to_string().contains("`local` has not answered yet"),
        "{error}"
    );
    discovery.fail("shop", "no such datacentre");
    let error = loop {
        let error = shop.item("7").await.unwrap_err().to_string();
        if !error.contains("not answered") {
            break error;
        }
    };
    assert!(error.contains("`local` no such datacentre"), "{error}");
    let server = Server::start(reply(0)).await;
    discovery.endpoints("shop", [server.url()]);
    shop.item("7").await.unwrap();
}

#[tokio::test]
async fn what_is_known_of_an_endpoint_outlives_a_change_of_the_set() {
    let discovery = ScriptedDiscovery::new();
    let bad = Server::start(|_| Reply::status(503)).await;
    let (good, other) = (Server::start(reply(0)).await, Server::start(reply(0)).await);
    let toml = "service.name = \"till\"\n[services.shop.discovery]\n\
                [services.shop.breaker]\nconsecutive = 3\nopen = \"1h\"\nopen_max = \"1h\"\n\
                [services.shop]\nbalance = \"round_robin\"\nretry.floor = 1000\n";
    discovery.endpoints("shop", [bad.url(), good.url()]);
    let app = TestApp::new()
        .config(Config::from_toml("interline.toml", toml).expect("TOML"))
        .discovery(&discovery)
        .publish_only()
        .start()
        .await;
    let shop: ShopClient = app.client();
    while bad.count() < 3 {
        shop.item("7").await.unwrap();
    }
    // Its circuit is open for an hour, whoever comes and goes beside it.
    discovery.endpoints("shop", [bad.url(), good.url(), other.url()]);
    app.until_endpoints("shop", 3).await;
    // The new one gets its share little by little.
    while other.count() < 5 {
        shop.item("7").await.unwrap();
    }
    assert_eq!(bad.count(), 3);
    // Gone and back again it is another one.
    discovery.endpoints("shop", [good.url()]);
    app.until_endpoints("shop", 1).await;
    discovery.endpoints("shop", [bad.url(), good.url()]);
    app.until_endpoints("shop", 2).await;
    while bad.count() == 3 {
        shop.item("7").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_stands_by_is_called_while_the_first_are_gone() {
    let registry = Registry::new();
    let mut first = Server::start(reply(0)).await;
    let spare = Server::start(reply(0)).await;
    let list = |first: &Server| {
        let (one, other) = (first.url(), spare.url());
        registry.write(&format!(
            "{{\"shop\": [{{\"url\": \"{other}\", \"priority\": 1}}, \"{one}\"]}}"
        ));
    };
    list(&first);
    let running = registry.till("").await;
    let shop: ShopClient = running.client().expect("a configured service");
    let callers = Callers::start(&shop);
    callers.more(50).await;
    assert_eq!(spare.count(), 0);
    for _ in 0..3 {
        // It goes, and is still on the list.
        let before = spare.count();
        let next = Server::start(reply(0)).await;
        drop(std::mem::replace(&mut first, next));
        until("calls of the one that stands by", || spare.count() > before).await;
        list(&first);
        until("calls of the first", || first.count() > 0).await;
        callers.more(20).await;
        let before = spare.count();
        callers.more(50).await;
        // A first attempt that went elsewhere before may come to its end there.
        assert!(
            spare.count() <= before + 8,
            "{before} and {}",
            spare.count()
        );
    }
    let (made, failed) = callers.finish().await;
    assert_eq!(failed, [""; 0], "of {made} calls");
    running.stop_within(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_thousand_changes_without_a_call_leave_no_trace() {
    let mut gone = Vec::new();
    for _ in 0..5 {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        gone.push(listener);
    }
    let address = |number: usize| {
        let listener: &tokio::net::TcpListener = &gone[number % gone.len()];
        format!("http://{}", listener.local_addr().unwrap())
    };
    let server = Server::start(reply(0)).await;
    let discovery = ScriptedDiscovery::new();
    // Always two of them, until it is the one that answers.
    discovery.endpoints("shop", [address(0), address(1)]);
    let app = TestApp::new()
        .config(Config::new().with("service.name", "till"))
        .discovery(&discovery)
        .publish_only()
        .start()
        .await;
    for number in 0..5_000 {
        discovery.endpoints("shop", [address(number), address(number + 1)]);
        tokio::task::yield_now().await;
    }
    discovery.endpoints("shop", [server.url()]);
    app.until_endpoints("shop", 1).await;
    let shop: ShopClient = app.client();
    assert_eq!(shop.item("7").await.unwrap(), item());
    assert_eq!(server.count(), 1);
    // Nobody has connected to those that were there in between: neither before nor with the call.
    for listener in &gone {
        let accepted = std::future::poll_fn(|cx| std::task::Poll::Ready(listener.poll_accept(cx)));
        assert!(accepted.await.is_pending());
    }
}
