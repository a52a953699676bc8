//! Messages without an end, and the account of what the broker confirmed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use interline::{App, Config, Publisher, Running};
use interline_tests::ledger::Input;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::trouble::{LIMIT, Outcome, Trouble};

/// How many lanes are published at once.
const LANES: u64 = 6;
/// Between two messages of a lane, so that the service keeps up.
const PACE: Duration = Duration::from_millis(4);

/// What became of what was published.
#[derive(Debug, Default)]
pub(crate) struct Published {
    /// The numbers that were confirmed, each with the identity of the message.
    pub(crate) confirmed: BTreeMap<u64, String>,
    /// Those that the broker may have or not.
    pub(crate) unknown: BTreeSet<u64>,
}

impl Published {
    pub(crate) fn add(&mut self, other: Self) {
        self.confirmed.extend(other.confirmed);
        self.unknown.extend(other.unknown);
    }
}

/// A publisher of its own, through the SDK.
pub(crate) struct Sender {
    running: Running,
    next: Arc<AtomicU64>,
}

impl Sender {
    pub(crate) async fn with(config: Config) -> Outcome<Self> {
        let running = App::new(config).publish_only().launch().await?;
        running.ready(LIMIT).await?;
        Ok(Self {
            running,
            next: Arc::default(),
        })
    }

    /// Publishes that many, all at once up to a bound, and accounts for them.
    pub(crate) async fn send(&self, count: u64) -> Outcome<Published> {
        let mut published = Published::default();
        let mut open = JoinSet::new();
        for sent in 0..count {
            let publisher = self.running.publisher();
            let n = self.next.fetch_add(1, Ordering::Relaxed);
            open.spawn(async move { one(&publisher, n, sent % LANES).await });
            if open.len() >= 64
                && let Some(sent) = open.join_next().await
            {
                published.add(sent?);
            }
        }
        while let Some(sent) = open.join_next().await {
            published.add(sent?);
        }
        Ok(published)
    }

    /// Publishes until it is stopped.
    pub(crate) fn start(&self) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let mut lanes = JoinSet::new();
        for lane in 0..LANES {
            let (stop, next) = (Arc::clone(&stop), Arc::clone(&self.next));
            let publisher = self.running.publisher();
            lanes.spawn(async move {
                let mut published = Published::default();
                while !stop.load(Ordering::Relaxed) {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    published.add(one(&publisher, n, lane).await);
                    sleep(PACE).await;
                }
                published
            });
        }
        Load { stop, lanes }
    }

    pub(crate) async fn close(self) {
        self.running.stop_within(Duration::from_secs(10)).await;
    }
}

/// Messages that are being published.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    lanes: JoinSet<Published>,
}

impl Load {
    /// Ends it, and waits for the last confirms.
    pub(crate) async fn stop(mut self) -> Outcome<Published> {
        self.stop.store(true, Ordering::Relaxed);
        let all = async {
            let mut published = Published::default();
            while let Some(lane) = self.lanes.join_next().await {
                published.add(lane?);
            }
            Ok(published)
        };
        tokio::time::timeout(LIMIT, all)
            .await
            .unwrap_or_else(|_| Err(Trouble::new("a publish neither succeeds nor fails")))
    }
}

async fn one(publisher: &Publisher, n: u64, lane: u64) -> Published {
    let input = Input {
        n,
        lane,
        payload: "x".repeat(200),
    };
    let mut published = Published::default();
    match publisher.publish(&input).await {
        Ok(receipt) => {
            published.confirmed.insert(n, receipt.id.to_string());
        }
        Err(error) => {
            if error.is_unknown() {
                published.unknown.insert(n);
            }
            // A broker that is down is not asked a thousand times a second.
            sleep(Duration::from_millis(50)).await;
        }
    }
    published
}
