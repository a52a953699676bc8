//! Fifty subscribers in one process: what they need of memory.
//!
//! ```sh
//! cargo bench -p interline-tests --bench subscribers
//! ```
//!
//! The app runs in a process of its own, so that nothing else counts; the figures are the resident
//! set as Linux states it. Every message is counted by its handler and, on RabbitMQ, by the server.

use std::env;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use interline::prelude::*;
use interline_tests::servers::{self, Server, Vhost};
use tokio::sync::Notify;

interline::service!("bench");

type Error = Box<dyn std::error::Error + Send + Sync>;

const LIMIT: Duration = Duration::from_secs(120);
const SUBSCRIBERS: usize = 50;
const MESSAGES: u64 = 50_000;
const ADDRESS: &str = "INTERLINE_BENCH_BROKER";

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "bench.readings")]
struct Reading {
    n: u64,
    note: String,
}

#[derive(Default)]
struct Progress {
    handled: AtomicU64,
    all: Notify,
}

#[subscriber(concurrency = 4)]
async fn read(_reading: Reading, progress: State<Arc<Progress>>) {
    if progress.handled.fetch_add(1, Ordering::Relaxed) + 1 == MESSAGES {
        progress.all.notify_one();
    }
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("the system gives two threads");
    let done = runtime.block_on(async {
        match env::var(ADDRESS) {
            Ok(address) => measure(&address).await,
            Err(_) => compare().await,
        }
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn compare() -> Result<(), Error> {
    println!(
        "| {SUBSCRIBERS} subscribers | before | ready | after {MESSAGES} messages of 512 bytes |"
    );
    println!("| --- | ---: | ---: | ---: |");
    println!("| embedded broker | {} |", run("memory:")?);
    Server::RabbitMq.available()?;
    let vhost = Vhost::create_on(servers::rabbitmq().await?).await?;
    println!("| RabbitMQ, quorum queues | {} |", run(&vhost.url)?);
    let queues = vhost.management.queues().await?;
    let read: Vec<_> = queues
        .iter()
        .filter(|queue| queue.name.starts_with("bench."))
        .collect();
    if read.len() != SUBSCRIBERS {
        return Err(format!("{} queues, not {SUBSCRIBERS}", read.len()).into());
    }
    for queue in read {
        let empty = |queue: &interline_tests::management::Queue| {
            queue.messages_ready == Some(0) && queue.messages_unacknowledged == Some(0)
        };
        let management = &vhost.management;
        management.wait_for_queue(&queue.name, empty, LIMIT).await?;
    }
    vhost.delete().await?;
    Ok(())
}

/// Runs this program once more, on one broker.
fn run(address: &str) -> Result<String, Error> {
    let ran = Command::new(env::current_exe()?)
        .env(ADDRESS, address)
        .stderr(Stdio::inherit())
        .output()?;
    if !ran.status.success() {
        return Err(format!("on `{}`: {}", kind(address), ran.status).into());
    }
    Ok(String::from_utf8(ran.stdout)?.trim().to_owned())
}

/// An address without its password.
fn kind(address: &str) -> &str {
    address.split(':').next().unwrap_or_default()
}

async fn measure(address: &str) -> Result<(), Error> {
    let before = resident()?;
    let progress = Arc::new(Progress::default());
    let mut config = Config::new();
    if kind(address) != "memory" {
        config = config.with("brokers.main.url", address);
    }
    let mut app = App::new(config).named_only().state(Arc::clone(&progress));
    for number in 0..SUBSCRIBERS {
        app = app.subscribe(topic(number), read {});
    }
    let running = app.launch().await?;
    running.ready(LIMIT).await?;
    let ready = resident()?;
    let publisher = running.publisher();
    let mut publishing = tokio::task::JoinSet::new();
    for number in 0..SUBSCRIBERS {
        let publisher = publisher.clone();
        publishing.spawn(async move {
            let each = MESSAGES / SUBSCRIBERS as u64;
            for n in 0..each {
                let note = "x".repeat(480);
                let reading = Publish::new(Reading { n, note }).to(topic(number));
                publisher.publish(reading).await?;
            }
            Ok::<(), PublishError>(())
        });
    }
    while let Some(published) = publishing.join_next().await {
        published??;
    }
    tokio::time::timeout(LIMIT, progress.all.notified()).await?;
    let after = resident()?;
    running.stop_within(LIMIT).await;
    let handled = progress.handled.load(Ordering::Relaxed);
    if handled != MESSAGES {
        return Err(format!("{handled} of {MESSAGES} handled").into());
    }
    println!("{before} | {ready} | {after}");
    Ok(())
}

fn topic(number: usize) -> String {
    format!("bench.readings.{number}")
}

/// The resident set, in MiB.
fn resident() -> Result<String, Error> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let kibibytes: u32 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|value| value.split_whitespace().next()?.parse().ok())
        .ok_or("the system does not state the resident set")?;
    Ok(format!("{:.1} MiB", f64::from(kibibytes) / 1_024.0))
}
