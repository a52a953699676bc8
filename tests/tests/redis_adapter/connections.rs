//! Connections: idle, blocked, refused, without permission, lost.

use std::collections::BTreeSet;
use std::time::Duration;

use interline::messaging::{
    BrokerErrorKind, Connected, ConnectionState, ConsumerState, MessageBroker, Settled,
};
use interline::observability::metrics::{InMemoryMetrics, RECONNECTS};
use interline::testing::ServerFixture;
use interline_tests::harness::soak;
use interline_tests::redis::Database;
use tokio::time::{Instant, sleep};

use crate::cases;
use crate::support::{
    Error, Inbox, LIMIT, Outcome, Stage, broker, eventually, message, subscription,
};

cases![
    a_lost_reader_is_replaced,
    a_missing_permission_is_told,
    a_reader_that_blocks_holds_no_acknowledgement_up,
    a_reader_wakes_after_every_pause,
    a_server_that_ends_idle_connections_ends_none_of_ours,
    a_server_that_is_not_there_yet_is_waited_for,
    a_stop_does_not_wait_for_the_reader,
    a_wrong_password_is_told_at_once,
    an_idle_reader_meets_no_error,
];

async fn an_idle_reader_meets_no_error() -> Outcome {
    let stage = Stage::new().await?;
    let mut inbox = Inbox::open(&stage.broker, subscription("t")).await?;
    let before = stage.database.clients().await?.len();
    assert_eq!(before, 3, "publish, settle and one reader");
    let ids = |clients: &[String]| -> BTreeSet<String> {
        let id = |line: &String| line.split(' ').next().unwrap_or_default().to_owned();
        clients.iter().map(id).collect()
    };
    let before = ids(&stage.database.clients().await?);
    let begun = Instant::now();
    // Several times what it blocks, and much more than the half second after which the client crate
    // gives up on an answer unless told otherwise.
    while begun.elapsed() < Duration::from_secs(7) {
        assert_eq!(inbox.consumer.state(), ConsumerState::Running);
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(ids(&stage.database.clients().await?), before);
    assert_eq!(stage.metrics.sum(RECONNECTS, &[]), 0.0);
    stage.broker.publish(message("t", "1")).await?;
    assert_eq!(inbox.take().await, "1");
    stage.end().await
}

/// The server's `timeout` passes while a full reader waits for its handlers, and while nothing comes.
async fn a_server_that_ends_idle_connections_ends_none_of_ours() -> Outcome {
    let server = ServerFixture::redis()
        .config_line("timeout 8")
        .start()
        .await?;
    let stage = Stage::on(&server, |config| config).await?;
    let mut wanted = subscription("t");
    wanted.prefetch = 1;
    let mut inbox = Inbox::open(&stage.broker, wanted).await?;
    for body in ["held", "next"] {
        stage.broker.publish(message("t", body)).await?;
    }
    let (_, held) = inbox.next().await;
    let clients = async || -> Result<BTreeSet<String>, Error> {
        let clients = stage.database.clients().await?.into_iter();
        let id = |line: String| line.split(' ').next().unwrap_or_default().to_owned();
        Ok(clients.map(id).collect())
    };
    let before = clients().await?;
    assert_eq!(before.len(), 3, "publish, settle and one reader");
    sleep(Duration::from_secs(20)).await;
    assert_eq!(clients().await?, before);
    assert!(held.is_current());
    assert_eq!(held.done().await?, Settled::Yes);
    assert_eq!(inbox.take().await, "next");
    sleep(Duration::from_secs(12)).await;
    assert_eq!(clients().await?, before);
    assert_eq!(stage.metrics.sum(RECONNECTS, &[]), 0.0);
    assert_eq!(inbox.consumer.state(), ConsumerState::Running);
    inbox.expect_quiet().await;
    stage.end().await
}

async fn a_reader_that_blocks_holds_no_acknowledgement_up() -> Outcome {
    let stage = Stage::with(|config| config.with("brokers.main.block", "20s")).await?;
    let mut busy = Inbox::open(&stage.broker, subscription("t")).await?;
    let _idle = Inbox::open(&stage.broker, subscription("nothing")).await?;
    let mut took = Vec::new();
    for number in 0..500 {
        stage
            .broker
            .publish(message("t", &number.to_string()))
            .await?;
        let (_, settlement) = busy.next().await;
        let begun = Instant::now();
        settlement.done().await?;
        took.push(begun.elapsed());
    }
    took.sort();
    let (median, longest) = (took[250], took[499]);
    println!(
        "acknowledged in {median:?}, {:?} and {longest:?}",
        took[495]
    );
    // A small packet that waits for the other side's takes 40 ms each time. The slowest ones tell how
    // busy this machine is.
    assert!(median < Duration::from_millis(20), "{median:?}");
    assert!(longest < Duration::from_secs(1), "{longest:?}");
    stage.end().await
}

/// Pauses longer than a reader waits at once; many readers, so that it does not take hours.
async fn a_reader_wakes_after_every_pause() -> Outcome {
    let (readers, rounds) = if soak() { (50, 200) } else { (10, 10) };
    let stage = Stage::with(|config| config.with("brokers.main.block", "100ms")).await?;
    let mut inboxes = Vec::new();
    for number in 0..readers {
        let topic: &'static str = format!("t{number}").leak();
        let inbox = Inbox::open(&stage.broker, subscription(topic)).await?;
        inboxes.push((topic, inbox));
    }
    let waking = inboxes.iter_mut().map(async |(topic, inbox)| {
        for round in 0..rounds {
            sleep(Duration::from_millis(101 + fastrand::u64(..100))).await;
            let body = round.to_string();
            stage.broker.publish(message(topic, &body)).await?;
            let begun = Instant::now();
            assert_eq!(inbox.take().await, body);
            let took = begun.elapsed();
            assert!(took < Duration::from_secs(2), "{topic} woke after {took:?}");
        }
        Ok::<_, Error>(())
    });
    futures_util::future::try_join_all(waking).await?;
    assert_eq!(stage.metrics.sum(RECONNECTS, &[]), 0.0);
    stage.end().await
}

async fn a_stop_does_not_wait_for_the_reader() -> Outcome {
    let stage = Stage::with(|config| config.with("brokers.main.block", "30s")).await?;
    let inbox = Inbox::open(&stage.broker, subscription("t")).await?;
    sleep(Duration::from_millis(100)).await;
    let begun = Instant::now();
    inbox.consumer.pause().await;
    inbox.consumer.resume().await;
    inbox.until(|state| *state == ConsumerState::Running).await;
    inbox.consumer.stop().await;
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    stage.end().await
}

async fn a_lost_reader_is_replaced() -> Outcome {
    let stage = Stage::new().await?;
    let mut inbox = Inbox::open(&stage.broker, subscription("t")).await?;
    for round in 0..5 {
        stage
            .broker
            .publish(message("t", &format!("{round}")))
            .await?;
        let (_, out) = inbox.next().await;
        assert_eq!(stage.database.close_connections("/consume/").await?, 1);
        eventually(async || !out.is_current(), || "nobody noticed".to_owned()).await;
        // What was out comes again, and only that.
        assert_eq!(inbox.take().await, round.to_string());
        inbox.expect_quiet().await;
    }
    assert_eq!(
        stage.metrics.sum(RECONNECTS, &[]),
        0.0,
        "the shared ones stayed"
    );
    stage.end().await
}

async fn a_wrong_password_is_told_at_once() -> Outcome {
    let server = ServerFixture::redis()
        .config_line("requirepass right-one")
        .config_line("user app on >app-secret ~* &* +@all")
        .start()
        .await?;
    let metrics = InMemoryMetrics::default();
    let place = server.url().replace("redis://", "");
    let cases = [
        (format!("redis://:hunter2@{place}"), "user `default`"),
        (format!("redis://app:hunter2@{place}"), "user `app`"),
        (format!("redis://{place}"), "wants a password"),
    ];
    for (url, told) in cases {
        let broker = broker(&url, "one", &metrics, |config| config);
        let begun = Instant::now();
        let error = broker.connect().await.expect_err("it is refused");
        assert!(begun.elapsed() < Duration::from_secs(5));
        assert_eq!(error.kind(), BrokerErrorKind::Authentication, "{error}");
        let text = error.to_string();
        assert!(text.contains("broker `main`"), "{text}");
        assert!(text.contains(&place) && text.contains(told), "{text}");
        assert!(!format!("{text} {error:?}").contains("hunter2"), "{text}");
        assert_eq!(broker.health_check().state, ConnectionState::Failed);
    }
    for url in [
        format!("redis://:right-one@{place}"),
        format!("redis://app:app-secret@{place}"),
    ] {
        let broker = broker(&url, "one", &metrics, |config| config);
        assert_eq!(broker.connect().await?, Connected::Yes);
    }
    Ok(())
}

async fn a_missing_permission_is_told() -> Outcome {
    let server = ServerFixture::redis()
        .config_line("user limited on >secret ~* &* +@all -xreadgroup -config")
        .start()
        .await?;
    let database = Database::create_on(&server).await?;
    let url = database.url.replace("redis://", "redis://limited:secret@");
    let metrics = InMemoryMetrics::default();
    let broker = broker(&url, "one", &metrics, |config| config);
    assert_eq!(broker.connect().await?, Connected::Yes);
    let inbox = Inbox::begin(&broker, subscription("t")).await?;
    let told = || broker_text(&inbox.consumer.state());
    eventually(
        async || told().contains("no permission") && told().contains("xreadgroup"),
        told,
    )
    .await;
    // What it may not ask is a note, not an error.
    let concerns = broker.durability(&[]).await?;
    assert!(
        concerns[0].to_string().contains("does not tell this user"),
        "{concerns:?}"
    );
    broker.disconnect(Instant::now() + LIMIT).await;
    Ok(())
}

fn broker_text(state: &ConsumerState) -> String {
    match state {
        ConsumerState::Failed(text) => text.clone(),
        other => format!("{other:?}"),
    }
}

async fn a_server_that_is_not_there_yet_is_waited_for() -> Outcome {
    let server = ServerFixture::redis().start().await?;
    server.kill().await?;
    let metrics = InMemoryMetrics::default();
    let broker = broker(server.url(), "one", &metrics, |config| config);
    assert_eq!(broker.connect().await?, Connected::Retrying);
    let health = broker.health_check();
    assert_eq!(health.state, ConnectionState::Connecting);
    let error = health.last_error.unwrap_or_default();
    assert!(error.contains("nothing listens at 127.0.0.1:"), "{error}");
    let mut inbox = Inbox::begin(&broker, subscription("t")).await?;
    server.restart().await?;
    inbox.until(|state| *state == ConsumerState::Running).await;
    broker.publish(message("t", "1")).await?;
    assert_eq!(inbox.take().await, "1");
    broker.disconnect(Instant::now() + LIMIT).await;
    Ok(())
}
