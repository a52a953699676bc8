use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::time::{Instant, timeout};

use super::*;
use crate::discovery::feed::Rules;
use crate::discovery::filter::Filter;
use crate::discovery::merge::Merge;
use crate::discovery::{Endpoint, EndpointSet, Following};
use crate::observability::metrics::{
    DISCOVERY_AGE, DISCOVERY_DURATION, DISCOVERY_ENDPOINTS, InMemoryMetrics,
};

type Script = dyn Fn(Feed) -> Following + Send + Sync;

/// A backend that does as the test says.
struct Scripted(Box<Script>);

impl Discovery for Scripted {
    fn kind(&self) -> &'static str {
        "scripted"
    }

    fn follow(&self, _: Query, feed: Feed) -> Following {
        (self.0)(feed)
    }
}

fn set(urls: &[&str]) -> EndpointSet {
    urls.iter()
        .map(|url| Endpoint::parse(url).unwrap())
        .collect()
}

fn watching(
    metrics: &InMemoryMetrics,
    script: impl Fn(Feed) -> Following + Send + Sync + 'static,
) -> Arc<ServiceWatch> {
    let service: Arc<str> = "orders".into();
    let backends = [("one".into(), "scripted")].into_iter();
    let rules = Rules {
        schemes: &["http"],
        filter: Filter::default(),
        merge: Merge::Failover,
        patience: Duration::from_secs(10),
    };
    let hub = Hub::new(&service, backends, rules, Some(metrics));
    let backend = Backend {
        name: "one".into(),
        discovery: Arc::new(Scripted(Box::new(script))),
    };
    let query = Query { service };
    let watch = ServiceWatch::new(hub, vec![backend], query, Duration::from_secs(5), None);
    let watch = Arc::new(watch);
    tokio::spawn(Arc::clone(&watch).run());
    watch
}

#[tokio::test(start_paused = true)]
async fn many_changes_are_few_snapshots_and_the_last_one_is_there_soon() {
    let metrics = InMemoryMetrics::default();
    let watch = watching(&metrics, |feed| {
        Box::pin(async move {
            for number in 0..2_000_u64 {
                let url = format!("http://host-{number}");
                feed.ask().answered(set(&[&url]));
                sleep(Duration::from_millis(1)).await;
            }
            std::future::pending::<()>().await;
        })
    });
    let mut snapshots = watch.snapshots();
    let mut seen = 0;
    let last = loop {
        timeout(Duration::from_secs(60), snapshots.changed())
            .await
            .expect("the last one")
            .unwrap();
        seen += 1;
        let snapshot = snapshots.borrow_and_update().clone();
        if *snapshot.endpoints == set(&["http://host-1999"]) {
            break Instant::now();
        }
    };
    assert!((20..=60).contains(&seen), "{seen}");
    assert_eq!(
        metrics.count(DISCOVERY_DURATION, &[("outcome", "answered")]),
        2_000
    );
    assert_eq!(
        metrics.sum(DISCOVERY_ENDPOINTS, &[("service", "orders")]),
        1.0
    );
    // Nobody says anything any more, and the age is told all the same.
    sleep(Duration::from_secs(60)).await;
    assert!(metrics.sum(DISCOVERY_AGE, &[]) >= 50.0);
    let status = watch.status();
    assert!(status.resolved);
    assert_eq!(
        (status.endpoints, status.sources[0].endpoints),
        (1, Some(1))
    );
    assert!(status.sources[0].age.unwrap() <= last.elapsed() + Duration::from_millis(60));
}

#[tokio::test(start_paused = true)]
async fn what_fails_ends_or_panics_keeps_the_last_answer_and_is_begun_again() {
    let metrics = InMemoryMetrics::default();
    let begun = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&begun);
    let watch = watching(&metrics, move |feed| {
        let turn = counted.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            match turn {
                0 => feed.ask().answered(set(&["http://a", "http://b"])),
                1 => panic!("a bug in a backend"),
                2 => feed.ask().failed("the registry is away"),
                _ => std::future::pending().await,
            }
        })
    });
    let mut snapshots = watch.snapshots();
    snapshots.changed().await.unwrap();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(begun.load(Ordering::SeqCst), 4);
    let status = watch.status();
    assert_eq!((status.endpoints, status.resolved), (2, true));
    assert_eq!(status.sources[0].error.as_deref(), Some("ended by itself"));
    assert_eq!(watch.why(), "`one` ended by itself");
    assert_eq!(
        metrics.count(DISCOVERY_DURATION, &[("outcome", "failed")]),
        4
    );
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_called_is_left_out() {
    let watch = watching(&InMemoryMetrics::default(), |feed| {
        Box::pin(async move {
            let endpoints = set(&["http://a", "amqp://b"]);
            feed.ask().answered(endpoints);
            std::future::pending::<()>().await;
        })
    });
    let mut snapshots = watch.snapshots();
    snapshots.changed().await.unwrap();
    assert_eq!(*snapshots.borrow().endpoints, set(&["http://a"]));
}

#[tokio::test(start_paused = true)]
async fn what_was_kept_is_called_until_nothing_was_said_for_long() {
    let watch = watching(&InMemoryMetrics::default(), |feed| {
        Box::pin(async move {
            feed.ask().failed("down");
            sleep(Duration::from_secs(5)).await;
            for _ in 0..100 {
                feed.ask().answered(EndpointSet::default());
                sleep(Duration::from_secs(1)).await;
            }
        })
    });
    // What cannot be called says nothing.
    watch.hub.remember(set(&["amqp://b"]), Duration::ZERO);
    sleep(Duration::from_secs(1)).await;
    assert!(!watch.status().resolved);
    watch.hub.remember(set(&["http://a"]), Duration::ZERO);
    sleep(Duration::from_secs(13)).await;
    let status = watch.status();
    assert_eq!((status.endpoints, status.resolved), (1, true));
    assert!(status.cached.is_some() && status.sources[0].error.is_none());
    sleep(Duration::from_secs(2)).await;
    let status = watch.status();
    assert_eq!((status.endpoints, status.resolved), (0, true));
    assert_eq!(status.cached, None);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_called_is_told_once() {
    let watch = watching(&InMemoryMetrics::default(), |_| {
        Box::pin(std::future::pending())
    });
    let log = tempfile::NamedTempFile::new().unwrap();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(Arc::new(log.reopen().unwrap()))
        .finish();
    let feed = Feed::new(&watch.hub, 0);
    tracing::subscriber::with_default(subscriber, || {
        for urls in [["http://a", "amqp://b"], ["amqp://b", "amqp://c"]] {
            feed.ask().answered(set(&urls));
            feed.ask().answered(set(&urls));
        }
    });
    let written = std::fs::read_to_string(log.path()).unwrap();
    let told = |url: &str| {
        let lines = written.lines();
        lines
            .filter(|line| line.contains("left out") && line.contains(url))
            .count()
    };
    assert_eq!((told("amqp://b"), told("amqp://c")), (1, 1), "{written}");
}
