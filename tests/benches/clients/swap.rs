//! A large set of endpoints that changes while calls are made.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use interline::discovery::{Discovery, Endpoint, EndpointSet, Feed, Following, Query};
use interline::observability::metrics::{
    DISCOVERY_ENDPOINTS, Instrument, Labels, MetricsSink, Recorder,
};
use interline::prelude::*;
use tokio::sync::watch;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::sleep;

use crate::rounds::Spread;
use crate::rows::{Orders, OrdersClient};
use crate::turns::quantile;
use crate::upstream::{Manner, Upstream};
use crate::{LIMIT, Result};

pub(crate) const TITLE: &str = "Swap of 10 000 endpoints, half of which stay";

const ENDPOINTS: usize = 10_000;
const CALLERS: usize = 8;
/// Between two swaps, so that there are calls that none of them bears on.
const PAUSE: Duration = Duration::from_millis(200);
/// How often it is looked whether calls go to the new set.
const LOOK_EVERY: Duration = Duration::from_micros(100);

/// A backend of discovery that says what it is told.
#[derive(Clone)]
struct Told(watch::Sender<EndpointSet>);

impl Discovery for Told {
    fn kind(&self) -> &'static str {
        "told"
    }

    fn follow(&self, _query: Query, feed: Feed) -> Following {
        let mut told = self.0.subscribe();
        Box::pin(async move {
            loop {
                let endpoints = told.borrow_and_update().clone();
                feed.ask().answered(endpoints);
                if told.changed().await.is_err() {
                    return;
                }
            }
        })
    }
}

/// Notes when a set of another size was found to be the one that counts, which is the last thing before
/// the client takes it.
#[derive(Clone, Default)]
struct Found(Arc<Mutex<Option<Instant>>>);

impl Found {
    fn take(&self) -> Option<Instant> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl MetricsSink for Found {
    fn recorder(&self, instrument: &'static Instrument, _: Labels) -> Arc<dyn Recorder> {
        struct Nobody;
        impl Recorder for Nobody {
            fn record(&self, _: f64) {}
        }
        if instrument == DISCOVERY_ENDPOINTS {
            Arc::new(self.clone())
        } else {
            Arc::new(Nobody)
        }
    }
}

impl Recorder for Found {
    fn record(&self, _: f64) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }
}

/// One change of the set.
struct Swap {
    told: Instant,
    found: Instant,
    in_use: Instant,
}

/// A call: when it began, and how long it took.
struct Made {
    begun: Instant,
    took: Duration,
}

/// So many endpoints from this one on, each an address of loopback where the upstream listens.
fn endpoints(port: u16, begin: usize, count: usize) -> Result<EndpointSet> {
    let mut all = Vec::with_capacity(count);
    for number in begin..begin + count {
        let (net, rest) = (1 + number / 60_000, number % 60_000);
        let host = format!("127.{net}.{}.{}", rest / 250, 1 + rest % 250);
        all.push(Endpoint::parse(&format!("http://{host}:{port}"))?);
    }
    Ok(all.into_iter().collect())
}

/// Swaps so often and prints the table.
pub(crate) async fn run(swaps: usize) -> Result<()> {
    let upstream = Upstream::start(1, Manner::Everywhere)?;
    let port = upstream.port(0);
    let told = Told(watch::Sender::new(endpoints(port, 0, ENDPOINTS)?));
    let found = Found::default();
    let toml = "service.name = \"bench\"\n[services.orders.discovery]\nbackends = [\"told\"]\n";
    let app = App::new(Config::from_toml("interline.toml", toml)?)
        .named_only()
        .publish_only()
        .metrics(Arc::new(found.clone()))
        .discovery("told", Arc::new(told.clone()));
    let running = app.launch().await?;
    in_use(&running, ENDPOINTS).await?;
    let client: OrdersClient = running.client()?;
    let stop = Arc::new(AtomicBool::new(false));
    let mut calling = JoinSet::new();
    for _ in 0..CALLERS {
        calling.spawn(call(client.clone(), Arc::clone(&stop)));
    }
    let mut swapped = Vec::new();
    for swap in 0..swaps {
        sleep(PAUSE).await;
        // Another size each time, by which the new one is known.
        let count = ENDPOINTS - 1 + swap % 2;
        let next = endpoints(port, (swap + 1) * ENDPOINTS / 2, count)?;
        found.take();
        let told_at = Instant::now();
        told.0.send_replace(next);
        let in_use = in_use(&running, count).await?;
        swapped.push(Swap {
            told: told_at,
            found: found.take().ok_or("nothing new was found")?,
            in_use,
        });
    }
    sleep(PAUSE).await;
    stop.store(true, Ordering::Relaxed);
    let mut made = Vec::new();
    while let Some(calls) = calling.join_next().await {
        made.extend(calls??);
    }
    running.stop_within(LIMIT).await;
    let answered = upstream.answered(0).await?;
    if answered < made.len() as u64 {
        return Err(format!("{} calls answered, {answered} given", made.len()).into());
    }
    print(&made, &swapped);
    Ok(())
}

/// Calls until it is told to stop; a call that fails ends everything.
async fn call(client: OrdersClient, stop: Arc<AtomicBool>) -> Result<Vec<Made>> {
    let mut made = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let id = made.len() as u64;
        let begun = Instant::now();
        client.order(id).await?.checked(id)?;
        made.push(Made {
            begun,
            took: begun.elapsed(),
        });
    }
    Ok(made)
}

/// Waits until calls go to a set of this size; gives when.
async fn in_use(running: &Running, count: usize) -> Result<Instant> {
    let running = running.clone();
    // On a thread of its own, because the timers of the runtime are too coarse.
    let looking = spawn_blocking(move || {
        let begun = Instant::now();
        while begun.elapsed() < LIMIT {
            if running.health().services[0].endpoints == count {
                return Some(Instant::now());
            }
            std::thread::sleep(LOOK_EVERY);
        }
        None
    });
    let found = looking.await?;
    found.ok_or_else(|| format!("calls do not go to {count} endpoints within {LIMIT:?}").into())
}

fn print(made: &[Made], swapped: &[Swap]) {
    println!(
        "### {TITLE}, {} times while {CALLERS} call\n",
        swapped.len()
    );
    println!("| from | until | ms, median | min-max |");
    println!("| --- | --- | ---: | ---: |");
    let found = swapped.iter().map(|swap| millis(swap.found - swap.told));
    let in_use = swapped
        .iter()
        .map(|swap| millis(swap.in_use.saturating_duration_since(swap.found)));
    for (what, took) in [
        (
            "the backend's answer | it counts (50 ms are for what else changes)",
            Spread::of(found),
        ),
        ("it counts | calls go there", Spread::of(in_use)),
    ] {
        println!(
            "| {what} | {:.1} | {:.1}-{:.1} |",
            took.median, took.min, took.max
        );
    }
    println!("\n| calls, each with a connection of its own | | p50 ms | p99 ms | longest ms |");
    println!("| --- | ---: | ---: | ---: | ---: |");
    let overlaps = |call: &&Made| {
        let ended = call.begun + call.took;
        let overlaps = |swap: &Swap| call.begun < swap.in_use && ended > swap.found;
        swapped.iter().any(overlaps)
    };
    let (during, between): (Vec<_>, Vec<_>) = made.iter().partition(overlaps);
    for (name, calls) in [
        ("while nothing changes", between),
        ("while the client changes", during),
    ] {
        if calls.is_empty() {
            println!("| {name} | 0 | | | |");
            continue;
        }
        let of = |share| quantile(calls.iter().map(|call| millis(call.took)), share);
        println!(
            "| {name} | {} | {:.2} | {:.2} | {:.2} |",
            calls.len(),
            of(0.5),
            of(0.99),
            of(1.0)
        );
    }
    println!("\nno call failed\n");
}

fn millis(took: Duration) -> f64 {
    took.as_secs_f64() * 1_000.0
}
