//! The service, in a process of its own.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt, stream};
use interline::launch::Running;
use interline::prelude::*;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::ground::Piece;
use crate::{LIMIT, Result};

/// The name of the handler.
const SUBSCRIBER: &str = "work";
/// How often the resident set is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// Publishes that are open at once, where the service fills its own broker.
const OPEN: usize = 200;

/// The resident set on the way, in MiB.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Course {
    /// Of the process, before it has done anything.
    pub(crate) before: f64,
    /// Connected, with all messages ready and next to nothing handled; on the embedded broker that is
    /// with all of them in memory.
    pub(crate) ready: f64,
    pub(crate) tenth: f64,
    pub(crate) end: f64,
    /// The most that was seen after a tenth.
    pub(crate) most: f64,
    pub(crate) seconds: f64,
}

impl Course {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        Ok(serde_json::from_str(text)?)
    }
}

/// What the service is told.
#[derive(Serialize, Deserialize)]
struct Told {
    settings: Vec<(String, String)>,
    count: u64,
    delay_ms: u64,
}

/// The same as text.
pub(crate) fn told(settings: &[(String, String)], count: u64, delay_ms: u64) -> String {
    let told = Told {
        settings: settings.to_vec(),
        count,
        delay_ms,
    };
    serde_json::to_string(&told).expect("it has a form in JSON")
}

struct Progress {
    count: u64,
    delay: Duration,
    handled: AtomicU64,
    tenth: Notify,
    all: Notify,
}

#[subscriber]
async fn work(_piece: Piece, progress: State<Arc<Progress>>) {
    sleep(progress.delay).await;
    let handled = progress.handled.fetch_add(1, Ordering::Relaxed) + 1;
    if handled == progress.count / 10 {
        progress.tenth.notify_one();
    }
    if handled == progress.count {
        progress.all.notify_one();
    }
}

impl Progress {
    fn of(count: u64, delay_ms: u64) -> Arc<Self> {
        Arc::new(Self {
            count,
            delay: Duration::from_millis(delay_ms),
            handled: AtomicU64::new(0),
            tenth: Notify::new(),
            all: Notify::new(),
        })
    }
}

fn app(settings: &[(String, String)], progress: &Arc<Progress>) -> App {
    let config = Config::new().with("service.name", "bench");
    let config = settings.iter().fold(config, |config, (key, value)| {
        config.with(key, value.as_str())
    });
    App::new(config)
        .named_only()
        .state(Arc::clone(progress))
        .register::<work>()
}

/// Makes the subscription, of which nothing may be missed from then on, and leaves it alone.
pub(crate) async fn declare(settings: &[(String, String)]) -> Result<()> {
    let running = app(settings, &Progress::of(0, 0)).launch().await?;
    running.ready(LIMIT).await?;
    running.stop_within(LIMIT).await;
    Ok(())
}

pub(crate) async fn run(told: &str) -> Result<()> {
    let told: Told = serde_json::from_str(told)?;
    let mut course = Course {
        before: resident()?,
        ..Course::default()
    };
    let progress = Progress::of(told.count, told.delay_ms);
    let running = app(&told.settings, &progress).launch().await?;
    running.ready(LIMIT).await?;
    running.pause(SUBSCRIBER).await?;
    if told.settings.is_empty() {
        fill(&running, told.count).await?;
    }
    course.ready = resident()?;
    let begun = Instant::now();
    running.resume(SUBSCRIBER).await?;
    timeout(LIMIT, progress.tenth.notified()).await?;
    course.tenth = resident()?;
    let all = timeout(LIMIT, progress.all.notified());
    tokio::pin!(all);
    loop {
        tokio::select! {
            ended = &mut all => {
                ended?;
                break;
            }
            () = sleep(LOOK) => course.most = course.most.max(resident()?),
        }
    }
    course.seconds = begun.elapsed().as_secs_f64();
    course.end = resident()?;
    course.most = course.most.max(course.end);
    running.stop_within(LIMIT).await;
    let handled = progress.handled.load(Ordering::Relaxed);
    if handled != told.count {
        return Err(format!("{handled} of {} handled", told.count).into());
    }
    println!("{}", serde_json::to_string(&course)?);
    Ok(())
}

/// Nobody else can fill the broker of this process.
async fn fill(running: &Running, count: u64) -> Result<()> {
    let publisher = running.publisher();
    let publishing = stream::iter(0..count)
        .map(|n| {
            let publisher = &publisher;
            async move { publisher.publish(&Piece::number(n)).await }
        })
        .buffer_unordered(OPEN);
    publishing.try_for_each(|_| async { Ok(()) }).await?;
    Ok(())
}

/// The resident set, in MiB.
fn resident() -> Result<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let kibibytes: u32 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|value| value.split_whitespace().next()?.parse().ok())
        .ok_or("the system does not state the resident set")?;
    Ok(f64::from(kibibytes) / 1_024.0)
}
