//! How long streams get, and what that loses.

use std::time::Duration;

use interline::Config;
use interline::messaging::{DurabilityWeight, MessageBroker};
use interline::observability::metrics::{CONSUMER_LAG, TRIMMED};
use interline::testing::ServerFixture;

use crate::cases;
use crate::support::{
    Inbox, Outcome, Stage, apply, eventually, message, numbers, publish, subscription,
};

cases![
    a_topic_without_subscribers_stays_short,
    settings_that_lose_messages_are_told,
    the_lag_is_what_is_not_settled,
    what_is_settled_is_trimmed,
    what_is_trimmed_unread_is_counted,
    what_nobody_has_read_is_never_trimmed,
];

fn short(config: Config) -> Config {
    config.with("brokers.main.max_length", 100)
}

async fn what_is_settled_is_trimmed() -> Outcome {
    let stage = Stage::with(short).await?;
    let mut inbox = Inbox::open(&stage.broker, subscription("t")).await?;
    publish(&stage.broker, numbers(0..1_000)).await?;
    inbox.take_all(1_000).await;
    let length = async || {
        stage
            .database
            .number(&["XLEN", "t"])
            .await
            .expect("a length")
    };
    // Whole nodes of a hundred entries go.
    eventually(
        async || length().await <= 200,
        || "it stays long".to_owned(),
    )
    .await;
    assert_eq!(stage.metrics.sum(TRIMMED, &[]), 0.0);
    stage.end().await
}

async fn what_nobody_has_read_is_never_trimmed() -> Outcome {
    let stage = Stage::with(short).await?;
    let behind = subscription("t");
    apply(&stage.broker, &behind).await?;
    let mut ahead = subscription("t");
    ahead.group = interline::messaging::Group::Named("ahead".into());
    let mut inbox = Inbox::open(&stage.broker, ahead).await?;
    publish(&stage.broker, numbers(0..1_000)).await?;
    inbox.take_all(1_000).await;
    // The one that is ahead looks after the stream several times.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(stage.database.number(&["XLEN", "t"]).await?, 1_000);
    let mut inbox = Inbox::open(&stage.broker, behind).await?;
    let mut came = inbox.take_all(1_000).await;
    came.sort();
    assert_eq!(came, numbers(0..1_000).collect::<Vec<_>>());
    assert_eq!(stage.metrics.sum(TRIMMED, &[]), 0.0);
    stage.end().await
}

async fn what_is_trimmed_unread_is_counted() -> Outcome {
    let always = |config: Config| short(config).with("brokers.main.trim", "always");
    let stage = Stage::with(always).await?;
    let mut wanted = subscription("t");
    wanted.prefetch = 1;
    let mut inbox = Inbox::open(&stage.broker, wanted).await?;
    publish(&stage.broker, ["first".to_owned()]).await?;
    let (_, out) = inbox.next().await;
    // One after the other: it matters here which is the last.
    for body in numbers(0..1_000) {
        publish(&stage.broker, [body]).await?;
    }
    let left = stage.database.number(&["XLEN", "t"]).await?;
    assert!(left < 300, "{left}");
    out.done().await?;
    let last = numbers(999..1_000).next().expect("one");
    let mut came = Vec::new();
    while came.last() != Some(&last) {
        came.push(inbox.take().await);
    }
    // One of the entries that are left may be `first`.
    let unread = 1_000 - came.len();
    let counted = || stage.metrics.sum(TRIMMED, &[]);
    eventually(
        async || counted() == unread as f64,
        || format!("{} counted, {unread} lost", counted()),
    )
    .await;
    stage.end().await
}

async fn the_lag_is_what_is_not_settled() -> Outcome {
    let stage = Stage::new().await?;
    // A group that begins in the middle of a stream, and is not at its end when it first reads.
    for body in ["old", "older"] {
        let old = ["XADD", "t", "*", "payload", body];
        stage.database.command(&old).await?;
    }
    let mut wanted = subscription("t");
    wanted.prefetch = 2;
    apply(&stage.broker, &wanted).await?;
    publish(&stage.broker, numbers(0..10)).await?;
    let mut inbox = Inbox::open(&stage.broker, wanted).await?;
    let lag = || stage.metrics.sum(CONSUMER_LAG, &[]);
    let until_lag = async |count: f64| {
        eventually(async || lag() == count, || format!("{} left", lag())).await;
    };
    until_lag(10.0).await;
    inbox.take_all(3).await;
    until_lag(7.0).await;
    // What is to be tried again counts once it is due.
    let (incoming, settlement) = inbox.next().await;
    let headers = incoming.headers.clone();
    settlement
        .retry(incoming, Duration::from_secs(3_600), headers)
        .await?;
    until_lag(6.0).await;
    let (incoming, settlement) = inbox.next().await;
    let headers = incoming.headers.clone();
    settlement.retry(incoming, Duration::ZERO, headers).await?;
    until_lag(6.0).await;
    inbox.take_all(6).await;
    until_lag(0.0).await;
    stage.end().await
}

async fn a_topic_without_subscribers_stays_short() -> Outcome {
    let stage = Stage::with(short).await?;
    for body in numbers(0..500) {
        let mut outgoing = message("nobody", &body);
        outgoing.subscribers_optional = true;
        stage.broker.publish(outgoing).await?;
    }
    let length = stage.database.number(&["XLEN", "nobody"]).await?;
    assert!(length <= 200, "{length}");
    stage.end().await
}

async fn settings_that_lose_messages_are_told() -> Outcome {
    let server = ServerFixture::redis()
        .appendonly(false)
        .config_line("maxmemory 100mb")
        .config_line("maxmemory-policy allkeys-lru")
        .start()
        .await?;
    let stage = Stage::on(&server, |config| config.with("brokers.main.trim", "always")).await?;
    let told: Vec<_> = stage.broker.durability(&[]).await?;
    let losses = told
        .iter()
        .filter(|told| told.weight == DurabilityWeight::Loss);
    let losses: Vec<_> = losses.map(ToString::to_string).collect();
    assert_eq!(losses.len(), 3, "{losses:?}");
    for (told, change) in losses.iter().zip(["appendonly yes", "noeviction", "trim"]) {
        assert!(told.contains(change), "{told}");
    }
    // The server of the other cases persists within a second.
    let stage = Stage::new().await?;
    let told = stage.broker.durability(&[]).await?;
    let notes = told
        .iter()
        .filter(|told| told.weight == DurabilityWeight::Note);
    assert_eq!((told.len(), notes.count()), (1, 1), "{told:?}");
    stage.end().await
}
