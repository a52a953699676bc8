//! Publishing: where a key goes, what is refused, records without a value.

use bytes::Bytes;
use interline::handling::PublishErrorKind;
use interline::message::MessageId;
use interline::messaging::{BrokerErrorKind, MessageBroker, Start, TopologyMode};
use interline_tests::harness::Case;

use crate::support::{
    Inbox, Outcome, Stage, close, message, partition, publish, subscription, text,
};

pub fn cases() -> Vec<Case> {
    vec![
        Case::new("a_key_goes_where_javas_client_puts_it", keys),
        Case::new("what_is_too_large_says_so", too_large),
        Case::new("a_record_without_a_value_arrives_empty", tombstone),
        Case::new("a_topic_that_was_deleted_is_reported", deleted),
        Case::new("nothing_is_made_where_that_is_not_ours", not_ours),
    ]
}

/// Partitions of as many as [`COUNTS`] says, by `BuiltInPartitioner.partitionForKey` of the Java client
/// 4.0.0.
const VECTORS: &[(&str, [i32; 3])] = &[
    ("a", [4, 5, 4]),
    ("ab", [2, 0, 2]),
    ("abc", [3, 4, 3]),
    ("abcd", [2, 5, 8]),
    ("order-1", [4, 4, 10]),
    ("order-2", [3, 1, 3]),
    ("order-42", [0, 1, 0]),
    ("k0", [5, 2, 5]),
    ("k1", [5, 0, 5]),
    ("k2", [3, 2, 9]),
    ("k3", [4, 4, 4]),
    ("customer/7", [3, 1, 3]),
    ("Zürich", [1, 2, 1]),
    ("日本", [3, 1, 3]),
    ("0123456789abcdef", [0, 6, 0]),
    ("9f1c2b7e-2f4d-4f55-8b9e-1d6a3c0e7a11", [0, 0, 6]),
];
const COUNTS: [i32; 3] = [6, 7, 12];

async fn keys() -> Outcome {
    let stage = Stage::new().await?;
    let broker = stage.connected("one").await?;
    for (at, count) in COUNTS.into_iter().enumerate() {
        let topic = format!("keys-{count}");
        let mut wanted = subscription(&topic);
        wanted.kafka.partitions = Some(count);
        wanted.kafka.retry_in_lane = true;
        let mut inbox = Inbox::open(&broker, wanted).await?;
        for (number, (key, _)) in VECTORS.iter().enumerate() {
            let mut outgoing = message(&topic, &number.to_string());
            outgoing.key = Some((*key).to_owned());
            publish(&broker, outgoing).await;
        }
        for _ in VECTORS {
            let incoming = inbox.take().await;
            let (key, expected) = VECTORS[text(&incoming).parse::<usize>()?];
            assert_eq!(incoming.key.as_deref(), Some(key));
            assert_eq!(partition(&incoming), expected[at], "`{key}` of {count}");
        }
    }
    close(&broker).await;
    Ok(())
}

async fn too_large() -> Outcome {
    let stage = Stage::new().await?;
    let broker = stage.connected("one").await?;
    let mut inbox = Inbox::open(&broker, subscription("t")).await?;
    let id = MessageId::parse("big").expect("a valid id");
    let body = Bytes::from((0..25 << 20).map(|_| fastrand::u8(..)).collect::<Vec<_>>());
    let outgoing = interline::message::Outgoing::new("t", id, body);
    let error = broker.publish(outgoing).await.expect_err("it is too large");
    assert_eq!(error.kind(), PublishErrorKind::TooLarge, "{error}");
    assert!(error.to_string().contains("max.message.bytes"), "{error}");
    publish(&broker, message("t", "small")).await;
    assert_eq!(text(&inbox.take().await), "small");
    close(&broker).await;
    Ok(())
}

async fn tombstone() -> Outcome {
    let stage = Stage::new().await?;
    let broker = stage.connected("one").await?;
    let mut inbox = Inbox::open(&broker, subscription("t")).await?;
    let mut outgoing = message("t", "ignored");
    outgoing.key = Some("k".to_owned());
    outgoing.kafka.tombstone = true;
    publish(&broker, outgoing).await;
    let incoming = inbox.take().await;
    assert!(incoming.body.is_empty());
    assert_eq!(incoming.key.as_deref(), Some("k"));
    close(&broker).await;
    Ok(())
}

async fn deleted() -> Outcome {
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
    let mut optional = message("t", "1");
    optional.subscribers_optional = true;
    publish(&broker, optional.clone()).await;
    stage.delete_topic("t").await?;
    let error = loop {
        match broker.publish(message("t", "2")).await {
            // Until the server's own leader has heard of it.
            Ok(()) => continue,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), PublishErrorKind::Unroutable, "{error}");
    publish(&broker, optional).await;
    let mut wanted = subscription("t");
    wanted.start = Start::Earliest;
    let mut inbox = Inbox::open(&broker, wanted).await?;
    assert_eq!(text(&inbox.take().await), "1");
    close(&broker).await;
    Ok(())
}

async fn not_ours() -> Outcome {
    let stage = Stage::new().await?;
    let broker = stage
        .connected_with("one", |config| config.with("brokers.main.topology", "off"))
        .await?;
    let mut optional = message("t", "1");
    optional.subscribers_optional = true;
    let error = broker.publish(optional).await.expect_err("it is not there");
    assert_eq!(error.kind(), PublishErrorKind::Unroutable);
    let (events, _replies) = tokio::sync::mpsc::channel(1);
    let error = broker
        .requests(events)
        .await
        .err()
        .expect("no topic is made");
    assert_eq!(error.kind(), BrokerErrorKind::NotFound);
    let mut wanted = subscription("t");
    wanted.topology = TopologyMode::Off;
    let mut inbox = Inbox::begin(&broker, wanted).await?;
    // Somebody else makes it, without the topics of retries: then retries wait in the process.
    let other = stage.connected("two").await?;
    let mut made = message("t", "2");
    made.subscribers_optional = true;
    publish(&other, made).await;
    let delivery = inbox.next().await;
    let headers = delivery.incoming.headers.clone();
    let incoming = delivery.incoming;
    let rung = std::time::Duration::from_secs(1);
    let begun = tokio::time::Instant::now();
    delivery.settlement.retry(incoming, rung, headers).await?;
    assert_eq!(text(&inbox.take().await), "2");
    assert!(begun.elapsed() >= rung, "{:?}", begun.elapsed());
    close(&broker).await;
    close(&other).await;
    Ok(())
}
