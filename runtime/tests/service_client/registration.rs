//! Programs that register themselves in a directory, and find each other there.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use interline::discovery::{Endpoint, RegistrationState, ServiceInstance};
use interline::prelude::*;
use interline::{CommunicationErrorKind, Running};
use tempfile::TempDir;

use crate::server::{Reply, Server};
use crate::shop::{ITEM, Shop, ShopClient, item};

const SOON: Duration = Duration::from_secs(10);

struct Shared(TempDir);

impl Shared {
    fn new() -> Self {
        Self(TempDir::new().expect("a directory"))
    }

    fn folder(&self) -> PathBuf {
        self.0.path().join("services").join("shop")
    }

    fn instances(&self) -> usize {
        let entries = fs::read_dir(self.folder()).into_iter().flatten().flatten();
        let paths = entries.map(|entry| entry.path());
        paths
            .filter(|path| path.extension().is_some_and(|end| end == "json"))
            .count()
    }

    fn app(&self, name: &str, lines: &str) -> App {
        let path = self.0.path().join("services");
        let toml = format!(
            "service.name = \"{name}\"\n[discovery.shared]\nkind = \"directory\"\n\
             path = {path:?}\npoll = \"10ms\"\nttl = \"2s\"\n{lines}"
        );
        let config = Config::from_toml("interline.toml", &toml).expect("TOML");
        App::new(config).named_only().publish_only()
    }

    /// An instance of the shop that serves at `server`.
    async fn shop(&self, server: &Server) -> Running {
        let lines = format!(
            "[registration]\nurl = \"{}\"\npropagation = \"200ms\"\n",
            server.url()
        );
        self.app("shop", &lines)
            .launch()
            .await
            .expect("a sound wiring")
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

fn state(running: &Running) -> Option<RegistrationState> {
    running.health().registrations.first().map(|one| one.state)
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_that_register_themselves_are_replaced_without_a_failed_call() {
    let shared = Shared::new();
    let reply = |_: &_| Reply::json(ITEM).after(Duration::from_millis(1));
    let mut running = Vec::new();
    for _ in 0..2 {
        let server = Server::start(reply).await;
        running.push((shared.shop(&server).await, server));
    }
    until("two instances", || shared.instances() == 2).await;
    let till = shared.app("till", "[services.shop]\nretry.attempts = 1\n");
    let till = till.launch().await.expect("a sound wiring");
    let shop: ShopClient = till.client().expect("a configured service");
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (shop, stop) = (shop.clone(), Arc::clone(&stop));
        callers.spawn(async move {
            let mut calls = 0;
            while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                // With one attempt each: nobody may be called that is not there any more.
                assert_eq!(shop.item("7").await.unwrap(), item());
                calls += 1;
            }
            calls
        });
    }
    for _ in 0..4 {
        let server = Server::start(reply).await;
        running.push((shared.shop(&server).await, server));
        let fresh = &running.last().expect("one").1;
        until("calls at the new one", || fresh.count() > 0).await;
        let (old, server) = running.remove(0);
        // Down to the last step; only then does its server end.
        old.stop_within(SOON).await;
        drop(server);
    }
    stop.store(true, std::sync::atomic::Ordering::SeqCst);
    let calls: u32 = callers.join_all().await.into_iter().sum();
    assert!(calls > 100, "{calls}");
    assert_eq!(shared.instances(), 2);
    for (running, _) in &running {
        running.stop_within(SOON).await;
    }
    assert_eq!(shared.instances(), 0);
    till.stop_within(SOON).await;
}

#[tokio::test]
async fn a_program_registers_when_it_is_ready_and_leaves_before_it_drains() {
    let shared = Shared::new();
    let server = Server::start(|_| Reply::json(ITEM)).await;
    let lines = format!(
        "[registration]\nurl = \"{}\"\npropagation = \"300ms\"\n",
        server.url()
    );
    let folder = shared.folder();
    let seen = Arc::new(Mutex::new(None));
    let noted = Arc::clone(&seen);
    let app = shared
        .app("shop", &lines)
        .on_drain(move |running| async move {
            let left = fs::read_dir(folder).unwrap().count();
            *noted.lock().unwrap() = Some((left, running.health().ready, Instant::now()));
        });
    let running = app.launch().await.expect("a sound wiring");
    until("registered", || {
        state(&running) == Some(RegistrationState::Active)
    })
    .await;
    assert_eq!(shared.instances(), 1);
    let line = format!(
        "itself   {}  registered at `shared` (directory)",
        server.url()
    );
    let banner = running.report().banner();
    assert!(banner.contains(&line), "{banner}");
    let begun = Instant::now();
    running.stop_within(SOON).await;
    let (left, ready, when) = seen.lock().unwrap().expect("the hook ran");
    assert_eq!((left, ready), (0, false));
    // Others had their time to notice.
    assert!(
        when - begun >= Duration::from_millis(300),
        "{:?}",
        when - begun
    );
    let error = running
        .manager()
        .discovery()
        .register_service(ServiceInstance::new(
            "x",
            "x",
            Endpoint::parse("http://x").unwrap(),
        ))
        .await;
    assert_eq!(error.unwrap_err().kind(), CommunicationErrorKind::Shutdown);
}

#[tokio::test]
async fn what_the_backend_has_forgotten_is_registered_again() {
    let shared = Shared::new();
    let server = Server::start(|_| Reply::json(ITEM)).await;
    let running = shared.shop(&server).await;
    for _ in 0..3 {
        until("registered", || shared.instances() == 1).await;
        fs::remove_dir_all(shared.0.path().join("services")).unwrap();
    }
    until("registered", || shared.instances() == 1).await;
    running.stop_within(SOON).await;
    assert_eq!(shared.instances(), 0);
}

#[tokio::test]
async fn others_are_registered_found_and_taken_away_by_hand() {
    let shared = Shared::new();
    let running = shared
        .app("till", "[services.shop]\n")
        .launch()
        .await
        .expect("a sound wiring");
    let discovery = running.manager().discovery();
    let error = discovery.discover_service("shops").await.unwrap_err();
    assert_eq!(error.kind(), CommunicationErrorKind::ServiceDiscovery);
    assert!(error.to_string().contains("there is `shop`"), "{error}");
    let server = Server::start(|_| Reply::json(ITEM)).await;
    let endpoint = Endpoint::parse(&server.url()).unwrap().with_zone("eu");
    let instance = ServiceInstance::new("shop", "shop-1", endpoint.clone());
    discovery.register_service(instance).await.unwrap();
    let found = discovery.discover_service("shop").await.unwrap();
    assert_eq!(found.iter().collect::<Vec<_>>(), [&endpoint]);
    assert_eq!(
        running
            .client::<ShopClient>()
            .unwrap()
            .item("7")
            .await
            .unwrap(),
        item()
    );
    assert!(discovery.deregister_service("shop", "shop-1").await);
    assert!(!discovery.deregister_service("shop", "shop-1").await);
    assert_eq!(shared.instances(), 0);
    let bad = ServiceInstance::new("../shop", "shop-1", endpoint);
    // It is told why at once; the test does not wait for the ten seconds.
    let register =
        tokio::time::timeout(Duration::from_millis(200), discovery.register_service(bad));
    assert!(register.await.is_err());
    let status = running.health().registrations;
    let why = status[0].error.as_deref().expect("a reason");
    assert!(why.contains("cannot be the name of a file"), "{why}");
    running.stop_within(SOON).await;
}
