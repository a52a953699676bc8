//! Signals end a process, so these tests run themselves again as a child.

use std::future::pending;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::config::Config;
use crate::handling::{BoxFuture, PublishError};
use crate::launch::App;
use crate::message::Outgoing;
use crate::messaging::{
    BrokerError, BrokerHealth, Capabilities, Connected, ConnectionState, Consumer, DeadLetterStore,
    Delivery, MessageBroker, Subscription, Topology,
};

/// Set in the child: how long its drain takes, in milliseconds.
const CHILD: &str = "INTERLINE_TEST_SIGNALS_DRAIN";

/// The child: a program that says when it is ready and takes its time to go down.
#[tokio::test]
async fn child() {
    let Ok(millis) = std::env::var(CHILD) else {
        return;
    };
    let drain = Duration::from_millis(millis.parse().unwrap());
    let app = App::new(Config::new().with("service.name", "child"))
        .named_only()
        .publish_only()
        .on_ready(|_| async { eprintln!("ready") })
        .on_drain(move |_| tokio::time::sleep(drain));
    crate::start::start(app).await.unwrap();
    eprintln!("down");
    std::process::exit(7);
}

/// A broker that never comes to an end with connecting, and says when it is to let go.
struct Endless(Arc<str>);

impl MessageBroker for Endless {
    fn name(&self) -> &Arc<str> {
        &self.0
    }

    fn kind(&self) -> &'static str {
        "endless"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::NONE
    }

    fn topology(&self, _: &[Arc<Subscription>]) -> Topology {
        Topology::default()
    }

    fn connect(&self) -> BoxFuture<'_, Result<Connected, BrokerError>> {
        eprintln!("connecting");
        Box::pin(pending())
    }

    fn apply<'a>(&'a self, _: &'a Topology) -> BoxFuture<'a, Result<(), BrokerError>> {
        Box::pin(async { Ok(()) })
    }

    fn publish(&self, _: Outgoing) -> BoxFuture<'_, Result<(), PublishError>> {
        Box::pin(pending())
    }

    fn subscribe(
        &self,
        _: Arc<Subscription>,
        _: mpsc::Sender<Delivery>,
    ) -> BoxFuture<'_, Result<Arc<dyn Consumer>, BrokerError>> {
        Box::pin(pending())
    }

    fn disconnect(&self, _: Instant) -> BoxFuture<'_, ()> {
        eprintln!("disconnected");
        Box::pin(async {})
    }

    fn health_check(&self) -> BrokerHealth {
        BrokerHealth::new(ConnectionState::Connecting)
    }

    fn dead_letters(&self) -> Option<&dyn DeadLetterStore> {
        None
    }
}

/// The child: a program that never becomes ready.
#[tokio::test]
async fn child_that_still_starts() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let app = App::new(Config::new().with("service.name", "child"))
        .named_only()
        .publish_only()
        .broker(Arc::new(Endless("main".into())));
    crate::start::start(app).await.unwrap();
    eprintln!("down");
    std::process::exit(7);
}

fn spawn(drain: &str) -> (Child, BufReader<ChildStderr>) {
    spawn_one("child", drain)
}

fn spawn_one(test: &str, drain: &str) -> (Child, BufReader<ChildStderr>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("start::tests::{test}"), "--nocapture"])
        .env(CHILD, drain)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stderr = BufReader::new(child.stderr.take().unwrap());
    (child, stderr)
}

/// Reads until a line holds `wanted`; gives what was read.
fn read_until(stderr: &mut BufReader<ChildStderr>, wanted: &str) -> String {
    let mut text = String::new();
    while !text.lines().any(|line| line.contains(wanted)) {
        let read = stderr.read_line(&mut text).unwrap();
        assert_ne!(read, 0, "`{wanted}` never came:\n{text}");
    }
    text
}

fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    let sent = Command::new("kill").args(["-s", name, &pid]).status();
    assert!(sent.unwrap().success());
}

#[test]
fn a_signal_takes_the_app_down_and_start_returns() {
    let (mut child, mut stderr) = spawn("0");
    let banner = read_until(&mut stderr, "ready");
    assert!(banner.contains("service `child`"), "{banner}");
    assert!(banner.contains("memory, in this process"), "{banner}");
    signal(&child, "TERM");
    let rest = read_until(&mut stderr, "down");
    assert!(rest.contains("SIGTERM: going down"), "{rest}");
    assert_eq!(child.wait().unwrap().code(), Some(7));
}

#[test]
fn a_second_signal_ends_at_once_with_its_number() {
    for (second, code) in [("TERM", 143), ("INT", 130)] {
        let (mut child, mut stderr) = spawn("60000");
        read_until(&mut stderr, "ready");
        signal(&child, "INT");
        read_until(&mut stderr, "SIGINT: going down");
        signal(&child, second);
        assert_eq!(child.wait().unwrap().code(), Some(code));
    }
}

#[test]
fn a_signal_during_the_start_takes_down_what_was_started() {
    let (mut child, mut stderr) = spawn_one("child_that_still_starts", "");
    read_until(&mut stderr, "connecting");
    signal(&child, "TERM");
    let rest = read_until(&mut stderr, "disconnected");
    assert!(rest.contains("SIGTERM: going down"), "{rest}");
    assert_eq!(child.wait().unwrap().code(), Some(7));
}
