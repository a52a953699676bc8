//! Signals end a process, so these tests run themselves again as a child.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;

use crate::config::Config;
use crate::launch::App;

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

fn spawn(drain: &str) -> (Child, BufReader<ChildStderr>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "start::tests::child", "--nocapture"])
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
