//! Messages for later: who moves them, what a crash does to them, what is left of them.

use std::collections::BTreeSet;
use std::env;
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use interline::handling::PublishErrorKind;
use interline::message::{MessageId, Outgoing};
use interline::messaging::kafka::Kafka;
use interline::messaging::{BrokerErrorKind, MessageBroker};
use interline::testing::ServerFixture;
use interline_tests::harness::Case;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message, OwnedMessage};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

use crate::support::{
    Error, Inbox, LIMIT, Outcome, Stage, close, message, publish, subscription, text,
};

/// Makes this program a process that schedules and moves: the server and the prefix.
const CHILD: &str = "INTERLINE_TEST_LATER";
const COUNT: u32 = 60;
const APART: Duration = Duration::from_millis(50);

pub fn cases() -> Vec<Case> {
    vec![
        Case::new("a_publisher_alone_publishes_what_is_due", publisher_alone),
        Case::new(
            "a_killed_process_leaves_its_messages_for_later_to_others",
            process_killed,
        ),
        Case::new("a_killed_server_keeps_messages_for_later", server_killed),
        Case::new("instances_share_the_messages_for_later", shared),
        Case::new("messages_that_were_moved_leave_nothing_behind", cleaned),
        Case::new(
            "a_message_for_later_whose_topic_is_gone_is_kept",
            topic_gone,
        ),
        Case::new("what_outlives_its_time_counts_from_when_it_is_due", expires),
        Case::new(
            "levels_that_are_not_ours_to_make_are_named",
            levels_not_ours,
        ),
    ]
}

pub async fn schedule(
    broker: &Kafka,
    outgoing: Outgoing,
    due: SystemTime,
) -> Result<(), PublishErrorKind> {
    let scheduled = timeout(LIMIT, broker.schedule(outgoing, due)).await;
    let scheduled = scheduled.expect("in time");
    scheduled.map_err(|error| {
        eprintln!("{error}");
        error.kind()
    })
}

fn millis(time: SystemTime) -> u128 {
    let since = time.duration_since(UNIX_EPOCH);
    since.expect("it is after 1970").as_millis()
}

pub async fn make_topic(broker: &Kafka, topic: &str) {
    let mut first = message(topic, "first");
    first.subscribers_optional = true;
    publish(broker, first).await;
}

pub fn reader(stage: &Stage) -> Result<BaseConsumer, Error> {
    Ok(ClientConfig::new()
        .set(
            "bootstrap.servers",
            stage.url.trim_start_matches("kafka://"),
        )
        .set("group.id", "outside")
        .set("enable.auto.commit", "false")
        .create()?)
}

/// The first `count` records of a topic's only partition, as somebody else's client sees them.
pub async fn records(stage: &Stage, topic: &str, count: usize) -> Result<Vec<OwnedMessage>, Error> {
    let (client, topic) = (reader(stage)?, stage.named(topic));
    tokio::task::spawn_blocking(move || {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&topic, 0, Offset::Beginning)?;
        client.assign(&list)?;
        let deadline = std::time::Instant::now() + 3 * LIMIT;
        let mut found = Vec::new();
        while found.len() < count {
            if std::time::Instant::now() > deadline {
                return Err(format!("{} of {count} records of `{topic}`", found.len()).into());
            }
            if let Some(Ok(record)) = client.poll(Duration::from_millis(100)) {
                found.push(record.detach());
            }
        }
        Ok(found)
    })
    .await?
}

pub fn header(record: &OwnedMessage, name: &str) -> Option<String> {
    let headers = record.headers()?;
    let found = headers.iter().find(|header| header.key == name)?;
    found
        .value
        .map(|value| String::from_utf8_lossy(value).into_owned())
}

async fn publisher_alone() -> Outcome {
    let stage = Stage::new().await?;
    let broker = stage.connected("one").await?;
    make_topic(&broker, "t").await;
    let due = SystemTime::now() + Duration::from_millis(6_400);
    let mut outgoing = message("t", "later");
    outgoing.key = Some("k".to_owned());
    outgoing.headers.set("x-tenant", "acme");
    let id = outgoing.id.clone();
    assert_eq!(schedule(&broker, outgoing, due).await, Ok(()));
    let mut tombstone = message("t", "ignored");
    tombstone.key = Some("k".to_owned());
    tombstone.kafka.tombstone = true;
    let after = due + Duration::from_secs(2);
    assert_eq!(schedule(&broker, tombstone, after).await, Ok(()));

    let error = broker.unschedule(&id).await.expect_err("it cannot");
    assert_eq!(error.kind(), BrokerErrorKind::Unsupported);
    assert_eq!(
        error.to_string(),
        "broker `main`: Kafka keeps what was written, and nothing single can be taken out of a topic: \
         `t/later` is delivered when it is due; have its handler look whether it is still wanted"
    );

    let found = records(&stage, "t", 3).await?;
    assert_eq!(found[1].payload(), Some(&b"later"[..]));
    assert_eq!(found[1].key(), Some(&b"k"[..]));
    assert_eq!(header(&found[1], "message-id"), Some("t/later".to_owned()));
    assert_eq!(header(&found[1], "x-tenant"), Some("acme".to_owned()));
    let own = found[1].headers().map_or(0, |headers| headers.count());
    assert_eq!(own, 2, "{:?}", found[1].headers());
    let written = found[1].timestamp().to_millis().unwrap_or_default();
    assert!(u128::try_from(written)? >= millis(due), "it was early");
    assert_eq!(
        (found[2].payload(), found[2].key()),
        (None, Some(&b"k"[..]))
    );
    close(&broker).await;
    Ok(())
}

/// In the child: schedules, moves, and waits to be killed.
pub fn child() -> Option<ExitCode> {
    let place = env::var(CHILD).ok()?;
    let (url, prefix) = place.split_once('|').expect("a server and a prefix");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let mut stage = Stage::at(url);
        stage.prefix = prefix.to_owned();
        let broker = stage.connected("child").await.expect("it connects");
        let begin = SystemTime::now() + Duration::from_secs(3);
        for number in 0..COUNT {
            let due = begin + APART * number;
            let outgoing = message("t", &number.to_string());
            assert_eq!(schedule(&broker, outgoing, due).await, Ok(()));
        }
        println!("held from {}", millis(begin));
        // Whoever started it ends it, at the latest with the program.
        sleep(Duration::from_secs(120)).await;
    });
    Some(ExitCode::FAILURE)
}

async fn process_killed() -> Outcome {
    let seed = fastrand::u64(..);
    println!("INTERLINE_TEST_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let stage = Stage::new().await?;
    let one = stage.connected("one").await?;
    // Its subscription exists from now on, and nobody reads it.
    let inbox = Inbox::open(&one, subscription("t")).await?;
    drop(inbox);
    close(&one).await;

    let mut child = Command::new(env::current_exe()?)
        .env(CHILD, format!("{}|{}", stage.url, stage.prefix))
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let said = BufReader::new(child.stdout.take().expect("it is piped"));
    let mut said = said.lines();
    let begin: u64 = loop {
        let line = timeout(LIMIT, said.next_line()).await??;
        let line = line.ok_or("the child ended")?;
        if let Some(begin) = line.strip_prefix("held from ") {
            break begin.parse()?;
        }
    };
    let begin = UNIX_EPOCH + Duration::from_millis(begin);
    // Somewhere among them.
    let until = begin + APART * random.u32(0..COUNT);
    sleep(until.duration_since(SystemTime::now()).unwrap_or_default()).await;
    child.start_kill()?;
    child.wait().await?;

    let two = stage.connected("two").await?;
    let mut inbox = Inbox::open(&two, subscription("t")).await?;
    let mut seen = BTreeSet::new();
    while seen.len() < COUNT as usize {
        let incoming = inbox.take().await;
        let number: u32 = text(&incoming).parse()?;
        assert_eq!(incoming.id.as_str(), format!("t/{number}"));
        let due = begin + APART * number;
        assert!(SystemTime::now() >= due, "{number} was early");
        seen.insert(number);
    }
    close(&two).await;
    Ok(())
}

async fn server_killed() -> Outcome {
    let server = ServerFixture::kafka().start().await?;
    let stage = Stage::at(server.url());
    let broker = stage.connected("one").await?;
    let mut inbox = Inbox::open(&broker, subscription("t")).await?;
    let begin = SystemTime::now() + Duration::from_secs(4);
    let due = |number: u32| begin + APART * number;
    for number in 0..COUNT {
        let outgoing = message("t", &number.to_string());
        assert_eq!(schedule(&broker, outgoing, due(number)).await, Ok(()));
    }
    // Once while they wait, once while they are moved.
    server.kill().await?;
    server.restart().await?;
    let mut seen = BTreeSet::new();
    let mut kills = 1;
    while seen.len() < COUNT as usize {
        let delivery = inbox.next().await;
        let number: u32 = text(&delivery.incoming).parse()?;
        assert!(SystemTime::now() >= due(number), "{number} was early");
        delivery.settlement.done().await?;
        seen.insert(number);
        if kills == 1 && seen.len() > 10 {
            kills += 1;
            server.kill().await?;
            server.restart().await?;
        }
    }
    close(&broker).await;
    Ok(())
}

async fn shared() -> Outcome {
    const EACH: u32 = 40;
    let stage = Stage::new().await?;
    let mut brokers: Vec<Arc<Kafka>> = Vec::new();
    for instance in ["one", "two", "three"] {
        let broker =
            stage.connected_with(instance, |config| config.with("brokers.main.partitions", 3));
        brokers.push(broker.await?);
    }
    let mut inbox = Inbox::open(&brokers[0], subscription("t")).await?;
    let begin = SystemTime::now() + Duration::from_secs(2);
    let due = |number: u32| begin + APART * (number % EACH);
    for (at, broker) in (0..).zip(&brokers) {
        for number in EACH * at..EACH * (at + 1) {
            let mut outgoing = message("t", &number.to_string());
            outgoing.key = Some(format!("k{number}"));
            assert_eq!(schedule(broker, outgoing, due(number)).await, Ok(()));
        }
    }
    let mut seen = BTreeSet::new();
    while seen.len() < 3 * EACH as usize {
        let incoming = inbox.take().await;
        let number: u32 = text(&incoming).parse()?;
        assert_eq!(incoming.key.as_deref(), Some(&*format!("k{number}")));
        assert!(SystemTime::now() >= due(number), "{number} was early");
        seen.insert(number);
        if seen.len() == EACH as usize {
            // The others take over what it had.
            close(&brokers[2]).await;
        }
    }
    for broker in &brokers[..2] {
        close(broker).await;
    }
    Ok(())
}

async fn cleaned() -> Outcome {
    let stage = Stage::new().await?;
    let broker = stage.connected("one").await?;
    let mut inbox = Inbox::open(&broker, subscription("t")).await?;
    let due = SystemTime::now() + Duration::from_secs(1);
    for number in 0..20 {
        let outgoing = message("t", &number.to_string());
        assert_eq!(schedule(&broker, outgoing, due).await, Ok(()));
    }
    for _ in 0..20 {
        inbox.take().await;
    }
    let deadline = Instant::now() + LIMIT;
    loop {
        let (client, topic) = (reader(&stage)?, stage.named("interline.later.1s"));
        let watermarks = tokio::task::spawn_blocking(move || {
            client.fetch_watermarks(&topic, 0, Duration::from_secs(5))
        });
        let (low, high) = watermarks.await??;
        assert!(high >= 20, "{high}");
        if low == high {
            break;
        }
        assert!(Instant::now() < deadline, "{low} to {high} lie on");
        sleep(Duration::from_millis(200)).await;
    }
    close(&broker).await;
    Ok(())
}

async fn topic_gone() -> Outcome {
    let stage = Stage::new().await?;
    // The library believes in a topic for a while after it is gone.
    let broker = stage
        .connected_with("one", |config| {
            config.with(
                "brokers.main.librdkafka.topic_metadata_propagation_max_ms",
                1_000,
            )
        })
        .await?;
    make_topic(&broker, "t").await;
    let due = SystemTime::now() + Duration::from_secs(3);
    let mut outgoing = message("t", "1");
    outgoing.key = Some("k".to_owned());
    assert_eq!(schedule(&broker, outgoing, due).await, Ok(()));
    stage.delete_topic("t").await?;
    let kept = records(&stage, "interline.later.dlq", 1).await?.remove(0);
    assert_eq!(kept.payload(), Some(&b"1"[..]));
    let said = |name: &str| header(&kept, name).unwrap_or_default();
    assert_eq!(said("x-dlq-reason"), "output_unroutable");
    assert_eq!(
        said("x-dlq-error"),
        format!("topic `{}` does not exist any more", stage.named("t"))
    );
    assert_eq!(
        (said("x-dlq-topic").as_str(), said("message-id").as_str()),
        ("t", "t/1")
    );
    assert_eq!(said("message-key"), "k");
    // It holds nobody up.
    make_topic(&broker, "u").await;
    let due = SystemTime::now() + Duration::from_millis(500);
    assert_eq!(schedule(&broker, message("u", "2"), due).await, Ok(()));
    let found = records(&stage, "u", 2).await?;
    assert_eq!(found[1].payload(), Some(&b"2"[..]));
    close(&broker).await;
    Ok(())
}

async fn levels_not_ours() -> Outcome {
    let stage = Stage::new().await?;
    let other = stage.connected("two").await?;
    make_topic(&other, "t").await;
    let broker = stage
        .connected_with("one", |config| config.with("brokers.main.topology", "off"))
        .await?;
    let due = SystemTime::now() + Duration::from_secs(2);
    let error = broker.schedule(message("t", "1"), due).await;
    let error = error.expect_err("there are no levels");
    assert_eq!(error.kind(), PublishErrorKind::Unsupported);
    let said = error.to_string();
    let named = stage.named("interline.later.1s");
    assert!(
        said.contains(&named) && said.contains("`topology = \"apply\"`"),
        "{said}"
    );
    // Where they are, it uses them.
    assert_eq!(schedule(&other, message("t", "1"), due).await, Ok(()));
    close(&other).await;
    let id = MessageId::parse("own").expect("a valid id");
    let outgoing = Outgoing::new("t", id, "2".into());
    let due = SystemTime::now() + Duration::from_millis(900);
    assert_eq!(schedule(&broker, outgoing, due).await, Ok(()));
    let found = records(&stage, "t", 3).await?;
    let bodies: BTreeSet<_> = found.iter().filter_map(Message::payload).collect();
    assert_eq!(bodies, [&b"first"[..], b"1", b"2"].into());
    close(&broker).await;
    Ok(())
}

async fn expires() -> Outcome {
    let stage = Stage::new().await?;
    let broker = stage.connected("one").await?;
    let mut inbox = Inbox::open(&broker, subscription("t")).await?;
    let ttl = Duration::from_secs(3);
    let due = SystemTime::now() + Duration::from_secs(4);
    let mut in_time = message("t", "in-time");
    in_time.ttl = Some(ttl);
    assert_eq!(schedule(&broker, in_time, due).await, Ok(()));
    // It waited for longer than it is worth delivering, but not since it was due.
    let delivery = inbox.next().await;
    assert_eq!(text(&delivery.incoming), "in-time");
    inbox.consumer.pause().await;
    let mut late = message("t", "late");
    late.ttl = Some(Duration::from_secs(1));
    publish(&broker, late).await;
    publish(&broker, message("t", "last")).await;
    sleep(Duration::from_millis(1_100)).await;
    inbox.consumer.resume().await;
    assert_eq!(text(&inbox.take().await), "last");
    // A retry does not end what was in time.
    let incoming = delivery.incoming;
    let headers = incoming.headers.clone();
    let wait = Duration::from_secs(1);
    delivery.settlement.retry(incoming, wait, headers).await?;
    assert_eq!(text(&inbox.take().await), "in-time");
    let letters = broker.dead_letters().expect("they are kept");
    let wanted = subscription("t");
    let deadline = Instant::now() + LIMIT;
    let found = loop {
        let found = letters.list(&wanted, 10).await?;
        if !found.is_empty() {
            break found;
        }
        assert!(Instant::now() < deadline, "it is not given up");
        sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(found.iter().map(text).collect::<Vec<_>>(), ["late"]);
    let reason = found[0].headers.text("x-dlq-reason");
    assert_eq!(reason.as_deref(), Some("expired"));
    close(&broker).await;
    Ok(())
}
