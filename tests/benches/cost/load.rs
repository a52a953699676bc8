//! What runs under callgrind: an app on the embedded broker that handles so many messages.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use interline::observability::metrics::InMemoryMetrics;
use interline::prelude::*;
use tokio::sync::Notify;

const LIMIT: Duration = Duration::from_secs(600);

/// One line of the table.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    metrics: bool,
    handles: bool,
}

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "publish",
        title: "publish only (the subscriber is paused), metrics on",
        metrics: true,
        handles: false,
    },
    Scenario {
        name: "whole",
        title: "publish, deliver, decode, handle, settle, metrics on",
        metrics: true,
        handles: true,
    },
    Scenario {
        name: "without-metrics",
        title: "the same, metrics off",
        metrics: false,
        handles: true,
    },
];

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "cost.orders")]
struct Order {
    n: u64,
    customer: String,
    total_cents: u64,
}

struct Progress {
    expected: u64,
    handled: AtomicU64,
    all: Notify,
}

#[subscriber]
async fn handle(order: Order, progress: State<Arc<Progress>>) {
    assert!(order.n < progress.expected);
    if progress.handled.fetch_add(1, Ordering::Relaxed) + 1 == progress.expected {
        progress.all.notify_one();
    }
}

/// Runs the scenario called `name` with `count` messages.
pub(crate) fn run(name: &str, count: &str) -> Result<(), String> {
    let scenario = SCENARIOS
        .iter()
        .find(|scenario| scenario.name == name)
        .ok_or_else(|| format!("there is no scenario `{name}`"))?;
    let count = count
        .parse()
        .map_err(|_| format!("`{count}` is no number"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    runtime
        .block_on(messages(scenario, count))
        .map_err(|error| error.to_string())
}

async fn messages(
    scenario: &Scenario,
    count: u64,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let progress = Arc::new(Progress {
        expected: count,
        handled: AtomicU64::new(0),
        all: Notify::new(),
    });
    let app = App::new(Config::new())
        .named_only()
        .state(Arc::clone(&progress))
        .register::<handle>();
    let app = if scenario.metrics {
        app.metrics(Arc::new(InMemoryMetrics::default()))
    } else {
        app
    };
    let running = app.launch().await?;
    running.ready(LIMIT).await?;
    if !scenario.handles {
        running.pause("handle").await?;
    }
    let publisher = running.publisher();
    for n in 0..count {
        let order = Order {
            n,
            customer: "customer-7781".to_owned(),
            total_cents: 129_900,
        };
        publisher.publish(&order).await?;
    }
    if scenario.handles {
        tokio::time::timeout(LIMIT, progress.all.notified()).await?;
    }
    let handled = progress.handled.load(Ordering::Relaxed);
    let expected = if scenario.handles { count } else { 0 };
    if handled != expected {
        return Err(format!("{handled} of {expected} were handled").into());
    }
    // The difference between two runs is what counts; going down in order is the same in both only
    // when there is nothing left to do.
    std::process::exit(0);
}
