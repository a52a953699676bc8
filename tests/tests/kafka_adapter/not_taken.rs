//! Messages for later whose topic does not take them when they are due.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;
use interline::messaging::MessageBroker;
use interline_tests::harness::Case;
use interline_tests::kafka_shares::{self, Share};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminOptions, NewTopic, TopicReplication};
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::acl::{self, ALL, allow};
use crate::later::{header, make_topic, records, schedule};
use crate::support::{Error, LIMIT, Outcome, Stage, close, message};

pub fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "a_topic_that_takes_nothing_holds_up_no_other_messages_for_later",
            refused,
        ),
        Case::new(
            "a_record_that_is_no_message_for_later_holds_up_none",
            strange,
        ),
        Case::new(
            "a_message_for_later_that_one_may_not_publish_goes_to_another",
            forbidden,
        ),
    ]
}

/// A compacted topic takes no record without a key.
async fn refused() -> Outcome {
    let stage = Stage::new().await?;
    let broker = stage.connected("one").await?;
    let topic = stage.named("compacted");
    let topic =
        NewTopic::new(&topic, 1, TopicReplication::Fixed(1)).set("cleanup.policy", "compact");
    let (admin, options) = (stage.admin()?, AdminOptions::new());
    for topic in admin.create_topics(&[topic], &options).await? {
        topic.map_err(|(name, code)| format!("{name}: {code}"))?;
    }
    make_topic(&broker, "u").await;
    let due = SystemTime::now() + Duration::from_secs(1);
    // More than are moved at once, so that nothing else is.
    let mut scheduling = (0..300).map(|number| {
        let outgoing = message("compacted", &number.to_string());
        schedule(&broker, outgoing, due)
    });
    if let Some(first) = scheduling.next() {
        // It makes the topics.
        assert_eq!(first.await, Ok(()));
    }
    for outcome in join_all(scheduling).await {
        assert_eq!(outcome, Ok(()));
    }
    let due = SystemTime::now() + Duration::from_secs(1);
    assert_eq!(
        schedule(&broker, message("u", "held-up"), due).await,
        Ok(())
    );
    let found = records(&stage, "u", 2).await?;
    assert_eq!(found[1].payload(), Some(&b"held-up"[..]));
    // None of them is lost: it waits with its id.
    let waits = records(&stage, "interline.later.1m", 1).await?.remove(0);
    let id = header(&waits, "message-id").unwrap_or_default();
    assert!(id.starts_with("compacted/"), "{id}");
    assert_eq!(
        header(&waits, "x-later-topic"),
        Some(stage.named("compacted"))
    );
    close(&broker).await;
    Ok(())
}

/// Records in a level that are none of ours, and dead letters that cannot be written.
async fn strange() -> Outcome {
    let stage = Stage::new().await?;
    let broker = stage.connected("one").await?;
    make_topic(&broker, "u").await;
    let letters = stage.named("interline.later.dlq");
    let letters =
        NewTopic::new(&letters, 1, TopicReplication::Fixed(1)).set("max.message.bytes", "1");
    let (admin, options) = (stage.admin()?, AdminOptions::new());
    for topic in admin.create_topics(&[letters], &options).await? {
        topic.map_err(|(name, code)| format!("{name}: {code}"))?;
    }
    let soon = || SystemTime::now() + Duration::from_secs(1);
    // It makes the topics.
    assert_eq!(schedule(&broker, message("u", "1"), soon()).await, Ok(()));
    records(&stage, "u", 2).await?;
    let producer: BaseProducer = ClientConfig::new()
        .set(
            "bootstrap.servers",
            stage.url.trim_start_matches("kafka://"),
        )
        .create()?;
    let level = stage.named("interline.later.1s");
    // More than are moved at once, so that nothing else is.
    for number in 0..300 {
        let (key, body) = (format!("k{number}"), number.to_string());
        let record = BaseRecord::to(&level).key(&key).payload(&body);
        producer.send(record).map_err(|(error, _)| error)?;
    }
    tokio::task::spawn_blocking(move || producer.flush(LIMIT)).await??;
    assert_eq!(schedule(&broker, message("u", "2"), soon()).await, Ok(()));
    let found = records(&stage, "u", 3).await?;
    assert_eq!(found[2].payload(), Some(&b"2"[..]));
    // They wait as they were, until they can be kept.
    let waits = records(&stage, "interline.later.1m", 1).await?.remove(0);
    let number = std::str::from_utf8(waits.payload().unwrap_or_default())?;
    let key = waits.key().map(String::from_utf8_lossy);
    assert_eq!(key.as_deref(), Some(&*format!("k{number}")));
    assert_eq!(header(&waits, "x-later-topic"), None);
    close(&broker).await;
    Ok(())
}

/// What a process has of the levels, as soon as two share them.
async fn share(stage: &Stage, client_id: &str) -> Result<Vec<(String, i32)>, Error> {
    let group = stage.named("interline.later");
    // Two partitions in each of nine levels.
    let all_given = |shares: &[Share]| {
        let given = shares.iter().map(|share| share.partitions.len());
        shares.len() == 2 && given.sum::<usize>() == 18
    };
    let shares = kafka_shares::until_shares(&stage.url, &group, all_given, LIMIT).await?;
    let own = shares
        .into_iter()
        .find(|share| share.client_id == client_id);
    Ok(own.map(|own| own.partitions).unwrap_or_default())
}

/// Writes a message for `t` to a partition of a level, in which its wait is over.
async fn lay(stage: &Stage, (level, partition): (String, i32)) -> Outcome {
    let servers = stage.url.trim_start_matches("kafka://");
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", servers)
        .create()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let written = now - Duration::from_secs(2 * 86_400);
    let (to, due) = (stage.named("t"), now.as_millis().to_string());
    let headers = [
        ("x-later-topic", to.as_str()),
        ("x-later-due", due.as_str()),
        ("message-id", "t/laid"),
    ];
    let headers = headers
        .into_iter()
        .fold(OwnedHeaders::new(), |all, (key, value)| {
            let value = Some(value);
            all.insert(Header { key, value })
        });
    let record = BaseRecord::<str, str>::to(&level)
        .partition(partition)
        .key("k")
        .payload("laid")
        .timestamp(i64::try_from(written.as_millis())?)
        .headers(headers);
    producer.send(record).map_err(|(error, _)| error)?;
    tokio::task::spawn_blocking(move || producer.flush(LIMIT)).await??;
    Ok(())
}

async fn forbidden() -> Outcome {
    let server = acl::server().await?;
    let stage = Stage::at(server.url());
    let place = server.password_url().expect("it wants a password");
    let place = place.trim_start_matches("kafka://");
    let mut limited = Stage::at(format!("kafka://app:open-sesame@{place}"));
    limited.prefix.clone_from(&stage.prefix);
    let may = stage
        .connected_with("may", |config| config.with("brokers.main.partitions", 2))
        .await?;
    let may_not = limited
        .connected_with("may-not", |config| {
            config
                .with("brokers.main.partitions", 2)
                .with("brokers.main.sasl", "plain")
        })
        .await?;
    make_topic(&may, "u").await;
    let admin = stage.admin()?;
    let topic = stage.named("t");
    let topic = NewTopic::new(&topic, 1, TopicReplication::Fixed(1));
    admin.create_topics(&[topic], &AdminOptions::new()).await?;
    allow(&server, &stage.named("t"), "User:nobody", ALL).await?;
    let refused = may_not.publish(message("t", "refused")).await;
    refused.expect_err("it is not allowed");
    // Both take part from now on.
    for (broker, body) in [(&may, "1"), (&may_not, "2")] {
        let late = SystemTime::now() + Duration::from_secs(2 * 86_400);
        assert_eq!(schedule(broker, message("u", body), late).await, Ok(()));
    }
    let given = share(&stage, "billing@may-not").await?;
    lay(&stage, given[0].clone()).await?;
    let found = records(&stage, "t", 1).await?.remove(0);
    assert_eq!(found.payload(), Some(&b"laid"[..]));
    assert_eq!(header(&found, "message-id"), Some("t/laid".to_owned()));
    assert_eq!(found.key(), Some(&b"k"[..]));
    close(&may).await;
    close(&may_not).await;
    Ok(())
}
