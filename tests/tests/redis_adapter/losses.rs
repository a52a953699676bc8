//! A copy that cannot be written: the original stays where it was.

use std::time::Duration;

use interline::Config;
use interline::message::Incoming;
use interline::message::headers::name;
use interline::messaging::{BrokerErrorKind, ConsumerState, MessageBroker, Settled};
use interline::testing::ServerFixture;
use interline_tests::redis::Database;
use tokio::time::{Instant, sleep};

use crate::cases;
use crate::support::{
    Error, Inbox, LIMIT, Outcome, Stage, apply, broker, eventually, message, subscription, text,
};

cases![
    a_dead_letter_that_cannot_be_written_leaves_its_message,
    a_letter_that_cannot_be_sent_back_stays_one,
    a_message_of_very_many_headers_is_moved_like_any_other,
    a_retry_that_cannot_be_written_leaves_its_message,
    what_cannot_be_given_up_holds_nothing_up,
    what_cannot_be_kept_comes_again_ever_more_rarely,
];

const DEAD_LETTERS: &str = "{t}:billing:dlq";
const RETRIES: &str = "{t}:billing:retry";

/// How many messages of a stream the group has handed out and not settled.
async fn pending(database: &Database, stream: &str) -> Result<i64, Error> {
    let found = database.command(&["XPENDING", stream, "billing"]).await?;
    let (count, ..): (i64, redis::Value, redis::Value, redis::Value) =
        redis::from_redis_value(found)?;
    Ok(count)
}

async fn a_dead_letter_that_cannot_be_written_leaves_its_message() -> Outcome {
    let stage = Stage::new().await?;
    let mut inbox = Inbox::open(&stage.broker, subscription("t")).await?;
    stage.broker.publish(message("t", "1")).await?;
    for stream in ["t", RETRIES] {
        let taken = ["LPUSH", DEAD_LETTERS, "somebody else's"];
        stage.database.command(&taken).await?;
        let (incoming, settlement) = inbox.next().await;
        let headers = incoming.headers.clone();
        let error = settlement.dead_letter(incoming, headers).await;
        let error = error.expect_err("there is no room for it");
        assert_eq!(error.kind(), BrokerErrorKind::TopologyConflict, "{error}");
        assert_eq!(pending(&stage.database, stream).await?, 1, "{stream}");
        let (again, settlement) = inbox.next().await;
        assert_eq!(text(&again), "1");
        stage.database.command(&["DEL", DEAD_LETTERS]).await?;
        let headers = again.headers.clone();
        let settled = if stream == "t" {
            // The next round has it from the retries.
            settlement.retry(again, Duration::ZERO, headers).await?
        } else {
            settlement.dead_letter(again, headers).await?
        };
        assert_eq!(settled, Settled::Yes);
        assert_eq!(pending(&stage.database, stream).await?, 0, "{stream}");
    }
    let kept = stage.database.number(&["XLEN", DEAD_LETTERS]).await?;
    assert_eq!(kept, 1);
    inbox.expect_quiet().await;
    stage.end().await
}

async fn a_retry_that_cannot_be_written_leaves_its_message() -> Outcome {
    let server = ServerFixture::redis()
        .config_line("user limited on >secret ~* &* +@all -zadd")
        .start()
        .await?;
    let database = Database::create_on(&server).await?;
    let url = database.url.replace("redis://", "redis://limited:secret@");
    let broker = broker(&url, "one", &Default::default(), |config| config);
    broker.connect().await?;
    let mut inbox = Inbox::open(&broker, subscription("t")).await?;
    broker.publish(message("t", "1")).await?;
    for _ in 0..2 {
        let (incoming, settlement) = inbox.next().await;
        assert_eq!(text(&incoming), "1");
        let headers = incoming.headers.clone();
        let error = settlement.retry(incoming, Duration::from_secs(1), headers);
        let error = error.await.expect_err("it may not");
        assert_eq!(error.kind(), BrokerErrorKind::Permission, "{error}");
        assert_eq!(pending(&database, "t").await?, 1);
    }
    assert_eq!(inbox.take().await, "1");
    broker.disconnect(Instant::now() + LIMIT).await;
    Ok(())
}

async fn what_cannot_be_kept_comes_again_ever_more_rarely() -> Outcome {
    let server = ServerFixture::redis()
        .config_line("user limited on >secret ~* &* +@all -zadd")
        .start()
        .await?;
    let database = Database::create_on(&server).await?;
    let url = database.url.replace("redis://", "redis://limited:secret@");
    let broker = broker(&url, "one", &Default::default(), |config| config);
    broker.connect().await?;
    let mut inbox = Inbox::open(&broker, subscription("t")).await?;
    broker.publish(message("t", "1")).await?;
    let begun = Instant::now();
    for _ in 0..6 {
        let (incoming, settlement) = inbox.next().await;
        let headers = incoming.headers.clone();
        let error = settlement.retry(incoming, Duration::from_secs(1), headers);
        error.await.expect_err("it may not");
    }
    // Each wait is about as long as it has been so.
    let took = begun.elapsed();
    assert!(took >= Duration::from_secs(5), "six times in {took:?}");
    let told = |state: &ConsumerState| matches!(state, ConsumerState::Failed(why) if why.contains("cannot be kept"));
    assert!(
        told(&inbox.consumer.state()),
        "{:?}",
        inbox.consumer.state()
    );
    database
        .command(&["ACL", "SETUSER", "limited", "+zadd"])
        .await?;
    let (incoming, settlement) = inbox.next().await;
    let headers = incoming.headers.clone();
    let settled = settlement.retry(incoming, Duration::from_secs(1), headers);
    assert_eq!(settled.await?, Settled::Yes);
    assert_eq!(inbox.consumer.state(), ConsumerState::Running);
    assert_eq!(inbox.take().await, "1");
    broker.disconnect(Instant::now() + LIMIT).await;
    Ok(())
}

async fn a_letter_that_cannot_be_sent_back_stays_one() -> Outcome {
    let server = ServerFixture::redis()
        .config_line("user limited on >secret ~* &* +@all -xadd")
        .start()
        .await?;
    let stage = Stage::on(&server, |config| config).await?;
    let wanted = subscription("t");
    let mut inbox = Inbox::open(&stage.broker, wanted.clone()).await?;
    stage.broker.publish(message("t", "1")).await?;
    let (incoming, settlement) = inbox.next().await;
    let headers = incoming.headers.clone();
    settlement.dead_letter(incoming, headers).await?;
    let url = stage
        .database
        .url
        .replace("redis://", "redis://limited:secret@");
    let limited = broker(&url, "two", &stage.metrics, |config| config);
    limited.connect().await?;
    let same = |letter: &Incoming| Some(letter.headers.clone());
    let letters = limited.dead_letters().expect("they are kept");
    let error = letters.redrive(&wanted, 10, &same).await;
    let error = error.expect_err("it may not");
    assert_eq!(error.kind(), BrokerErrorKind::Permission, "{error}");
    assert_eq!(letters.list(&wanted, 10).await?.len(), 1);
    let letters = stage.broker.dead_letters().expect("they are kept");
    assert_eq!(letters.redrive(&wanted, 10, &same).await?, 1);
    assert_eq!(inbox.take().await, "1");
    limited.disconnect(Instant::now() + LIMIT).await;
    stage.end().await
}

/// More than the server's scripts can pass on at once.
async fn a_message_of_very_many_headers_is_moved_like_any_other() -> Outcome {
    const HEADERS: usize = 5_000;
    let stage = Stage::new().await?;
    let wanted = subscription("t");
    let mut inbox = Inbox::open(&stage.broker, wanted.clone()).await?;
    let names: Vec<_> = (0..HEADERS).map(|at| format!("h:x-{at}")).collect();
    let mut add = vec!["XADD", "t", "*", "payload", "body"];
    for name in &names {
        add.extend([name.as_str(), "ä"]);
    }
    stage.database.command(&add).await?;
    // One of ours, and another that waits behind it.
    let mut ours = message("t", "ours");
    for at in 0..HEADERS {
        ours.headers.set(format!("x-{at}"), "ä");
    }
    stage.broker.publish(ours).await?;
    stage.broker.publish(message("t", "behind")).await?;
    let whole = |incoming: &Incoming| {
        let found = (0..HEADERS).filter(|at| {
            let value = incoming.headers.text(&format!("x-{at}"));
            value.as_deref() == Some("ä")
        });
        assert_eq!(found.count(), HEADERS);
    };
    let mut delayed = 0;
    while delayed < 3 {
        let (incoming, settlement) = inbox.next().await;
        let headers = incoming.headers.clone();
        settlement.retry(incoming, Duration::ZERO, headers).await?;
        delayed += 1;
    }
    for _ in 0..3 {
        let (incoming, settlement) = inbox.next().await;
        if text(&incoming) == "behind" {
            settlement.done().await?;
            continue;
        }
        whole(&incoming);
        let mut headers = incoming.headers.clone();
        headers.set(name::DLQ_REASON, "rejected");
        settlement.dead_letter(incoming, headers).await?;
    }
    let letters = stage.broker.dead_letters().expect("they are kept");
    let found = letters.list(&wanted, 10).await?;
    assert_eq!(found.len(), 2);
    found.iter().for_each(whole);
    let same = |letter: &Incoming| Some(letter.headers.clone());
    assert_eq!(letters.redrive(&wanted, 10, &same).await?, 2);
    for _ in 0..2 {
        let (incoming, settlement) = inbox.next().await;
        whole(&incoming);
        settlement.done().await?;
    }
    inbox.expect_quiet().await;
    stage.end().await
}

/// What outlived its time belongs among the dead letters, and somebody has taken their key.
async fn what_cannot_be_given_up_holds_nothing_up() -> Outcome {
    let quick = |config: Config| config.with("brokers.main.claim_after", "1s");
    let stage = Stage::with(quick).await?;
    let wanted = subscription("t");
    apply(&stage.broker, &wanted).await?;
    let taken = ["LPUSH", DEAD_LETTERS, "somebody else's"];
    stage.database.command(&taken).await?;
    let mut late = message("t", "late");
    late.ttl = Some(Duration::from_millis(1));
    stage.broker.publish(late).await?;
    stage.broker.publish(message("t", "in-time")).await?;
    sleep(Duration::from_millis(50)).await;
    let mut inbox = Inbox::open(&stage.broker, wanted.clone()).await?;
    assert_eq!(inbox.take().await, "in-time");
    // Long enough for it to be looked at again.
    for body in ["1", "2", "3"] {
        inbox.expect_quiet().await;
        stage.broker.publish(message("t", body)).await?;
        assert_eq!(inbox.take().await, body);
        assert_eq!(inbox.consumer.state(), ConsumerState::Running);
        assert_eq!(pending(&stage.database, "t").await?, 1);
    }
    stage.database.command(&["DEL", DEAD_LETTERS]).await?;
    let letters = stage.broker.dead_letters().expect("they are kept");
    let listed = async || letters.list(&wanted, 10).await.expect("they can be listed");
    eventually(
        async || !listed().await.is_empty(),
        || "it is no dead letter".to_owned(),
    )
    .await;
    assert_eq!(text(&listed().await[0]), "late");
    assert_eq!(pending(&stage.database, "t").await?, 0);
    inbox.expect_quiet().await;
    stage.end().await
}
