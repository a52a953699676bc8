//! Retries, dead letters, and that what was settled stays settled.

use std::sync::Arc;
use std::time::{Duration, Instant};

use interline::message::Incoming;
use interline::message::headers::name;
use interline::messaging::{Group, MessageBroker, OrderedBy, Settled, TopologyMode};
use interline::observability::metrics::InMemoryMetrics;
use interline_tests::harness::{self, Case};
use interline_tests::management::Queue;
use lapin::options::BasicPublishOptions;
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Connection, ConnectionProperties};
use serde_json::json;

use crate::support::{Inbox, LIMIT, Outcome, Stage, broker, message, subscription};

pub fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "a_retry_waits_on_the_server_and_returns_to_its_own_queue",
            retries,
        ),
        Case::new(
            "a_short_wait_does_not_stand_behind_a_long_one",
            short_before_long,
        ),
        Case::new(
            "a_missing_delay_queue_that_we_may_not_make_loses_nothing",
            held,
        ),
        Case::new(
            "a_dead_letter_is_the_original_and_can_be_sent_back",
            dead_letters,
        ),
        Case::new("dead_letters_made_by_the_server_say_why", server_made),
        Case::new("a_copy_that_fails_gives_the_message_back", failing_copy),
        Case::new(
            "a_copy_that_fails_in_what_is_ordered_keeps_its_place",
            failing_copy_in_order,
        ),
        Case::new("what_was_acknowledged_does_not_come_back", flushed)
            .limit(Duration::from_secs(300)),
    ]
}

fn again(incoming: &Incoming, attempt: u32) -> interline::Headers {
    let mut headers = incoming.headers.clone();
    headers.set(name::ATTEMPT, attempt);
    headers
}

async fn retries() -> Outcome {
    let stage = Stage::new().await?;
    let mut inbox = Inbox::open(&stage.broker, subscription("a.{x}")).await?;
    let mut other = subscription("a.{x}");
    other.group = Group::Named("audit".into());
    let mut other = Inbox::open(&stage.broker, other).await?;
    // A foreign message, with properties that we have no header for.
    let connection = Connection::connect(&stage.vhost.url, ConnectionProperties::default()).await?;
    let mut table = FieldTable::default();
    table.insert("theirs".into(), AMQPValue::ShortInt(3));
    table.insert(
        "CC".into(),
        AMQPValue::FieldArray(vec![AMQPValue::LongString("a.cc".into())].into()),
    );
    let properties = BasicProperties::default()
        .with_content_encoding("gzip".into())
        .with_reply_to("answers".into())
        .with_expiration("60000".into())
        .with_user_id("guest".into())
        .with_headers(table);
    connection
        .create_channel()
        .await?
        .basic_publish(
            "interline".into(),
            "a.b".into(),
            BasicPublishOptions::default(),
            b"\x00odd\xff",
            properties,
        )
        .await?
        .await?;
    other.take().await;
    let mut id = None;
    for attempt in 2..=6 {
        let delivery = inbox.next().await;
        let incoming = delivery.incoming;
        assert_eq!(incoming.attempt, attempt - 1);
        assert_eq!(&*incoming.topic, "a.b");
        assert_eq!(&incoming.body[..], b"\x00odd\xff");
        assert_eq!(*id.get_or_insert(incoming.id.clone()), incoming.id);
        assert_eq!(incoming.headers.get("theirs"), Some(&3_i64.into()));
        let headers = again(&incoming, attempt);
        let begun = Instant::now();
        let settled =
            delivery
                .settlement
                .retry(Arc::clone(&incoming), Duration::from_secs(1), headers);
        assert_eq!(settled.await?, Settled::Yes);
        let is_waiting = stage.management().queue("billing.a.{x}.retry.1s").await?;
        assert!(is_waiting.is_some());
        let back = inbox.next().await;
        let waited = begun.elapsed();
        assert!((900..5_000).contains(&waited.as_millis()), "{waited:?}");
        // Put it back as it came for the next round.
        assert_eq!(back.settlement.release().await?, Settled::Yes);
    }
    assert!(other.is_quiet(Duration::from_millis(300)).await);
    stage.end().await
}

async fn short_before_long() -> Outcome {
    let stage = Stage::new().await?;
    let mut inbox = Inbox::open(&stage.broker, subscription("a.b")).await?;
    for (id, wait) in [("long", 30), ("short", 1)] {
        stage.broker.publish(message("a.b", id, "{}")).await?;
        let delivery = inbox.next().await;
        let incoming = delivery.incoming;
        let headers = again(&incoming, 2);
        delivery
            .settlement
            .retry(incoming, Duration::from_secs(wait), headers)
            .await?;
    }
    let begun = Instant::now();
    assert_eq!(inbox.take().await.id.as_str(), "short");
    assert!(begun.elapsed() < Duration::from_secs(5));
    stage.end().await
}

async fn held() -> Outcome {
    let stage = Stage::new().await?;
    stage
        .management()
        .declare_queue("theirs", json!({ "x-queue-type": "quorum" }))
        .await?;
    let mut wanted = subscription("a.b");
    wanted.topology = TopologyMode::Off;
    wanted.rabbitmq.queue = Some("theirs".to_owned());
    wanted.rabbitmq.exchange = Some(String::new());
    let mut inbox = Inbox::open(&stage.broker, wanted).await?;
    stage
        .management()
        .bind_queue("interline", "theirs", "a.b")
        .await?;
    stage.broker.publish(message("a.b", "1", "{}")).await?;
    let delivery = inbox.next().await;
    let incoming = delivery.incoming;
    let begun = Instant::now();
    let headers = again(&incoming, 2);
    assert_eq!(
        delivery
            .settlement
            .retry(incoming, Duration::from_secs(1), headers)
            .await?,
        Settled::Yes
    );
    let back = inbox.take().await;
    assert_eq!((back.id.as_str(), back.attempt), ("1", 2));
    assert!(begun.elapsed() > Duration::from_millis(900));
    assert!(stage.management().queue("theirs.retry.1s").await?.is_none());
    let is_empty = |queue: &Queue| queue.messages() == Some(0);
    stage
        .management()
        .wait_for_queue("theirs", is_empty, LIMIT)
        .await?;
    stage.end().await
}

async fn dead_letters() -> Outcome {
    let stage = Stage::new().await?;
    let wanted = subscription("a.b");
    let mut inbox = Inbox::open(&stage.broker, wanted.clone()).await?;
    let store = stage
        .broker
        .dead_letters()
        .expect("RabbitMQ keeps dead letters");
    for id in ["1", "2", "3", "4"] {
        let mut outgoing = message("a.b", id, vec![0xff, 0x00, id.as_bytes()[0]]);
        outgoing.ttl = Some(Duration::from_secs(3_600));
        outgoing.headers.set("mine", id.to_owned());
        stage.broker.publish(outgoing).await?;
        let delivery = inbox.next().await;
        let incoming = delivery.incoming;
        let mut headers = incoming.headers.clone();
        headers.set(name::DLQ_REASON, "rejected");
        assert_eq!(
            delivery.settlement.dead_letter(incoming, headers).await?,
            Settled::Yes
        );
    }
    let ids = |letters: &[Incoming]| -> Vec<String> {
        letters.iter().map(|letter| letter.id.to_string()).collect()
    };
    // Looking changes nothing, not even the order.
    for _ in 0..3 {
        let letters = store.list(&wanted, 10).await?;
        assert_eq!(ids(&letters), ["1", "2", "3", "4"]);
        assert_eq!(&letters[1].body[..], [0xff, 0x00, b'2']);
        assert_eq!(&*letters[1].topic, "a.b");
        assert_eq!(letters[1].headers.text("mine").as_deref(), Some("2"));
        assert_eq!(
            letters[1].headers.text(name::DLQ_REASON).as_deref(),
            Some("rejected")
        );
    }
    assert_eq!(ids(&store.list(&wanted, 2).await?), ["1", "2"]);
    let purged = store
        .purge(&wanted, 10, &|letter| letter.id.as_str() == "2")
        .await?;
    assert_eq!(purged, 1);
    assert_eq!(ids(&store.list(&wanted, 10).await?), ["1", "3", "4"]);
    let choose = |letter: &Incoming| {
        (letter.id.as_str() != "4").then(|| {
            let mut headers = letter.headers.clone();
            headers.retain(|name, _| !name.starts_with("x-dlq-"));
            headers.set(name::REDRIVEN_FROM, "billing.a.b.dlq");
            headers
        })
    };
    assert_eq!(store.redrive(&wanted, 10, &choose).await?, 2);
    for id in ["1", "3"] {
        let back = inbox.take().await;
        assert_eq!((back.id.as_str(), &*back.topic), (id, "a.b"));
        assert!(!back.headers.contains(name::DLQ_REASON));
        assert!(back.headers.contains(name::REDRIVEN_FROM));
    }
    assert_eq!(ids(&store.list(&wanted, 10).await?), ["4"]);
    stage.end().await
}

async fn server_made() -> Outcome {
    let stage = Stage::new().await?;
    let wanted = subscription("a.b");
    let mut inbox = Inbox::open(&stage.broker, wanted.clone()).await?;
    stage.broker.publish(message("a.b", "poison", "!")).await?;
    for _ in 0..=20 {
        inbox.next().await.settlement.release().await?;
    }
    assert!(inbox.is_quiet(Duration::from_millis(300)).await);
    let store = stage
        .broker
        .dead_letters()
        .expect("RabbitMQ keeps dead letters");
    let one = |queue: &Queue| queue.messages() == Some(1);
    stage
        .management()
        .wait_for_queue("billing.a.b.dlq", one, LIMIT)
        .await?;
    let letters = store.list(&wanted, 10).await?;
    let letter = &letters[0];
    assert_eq!(
        (letter.id.as_str(), &*letter.topic, &letter.body[..]),
        ("poison", "a.b", &b"!"[..])
    );
    assert_eq!(
        letter.headers.text(name::DLQ_REASON).as_deref(),
        Some("delivery_limit")
    );
    assert_eq!(
        letter.headers.text(name::DLQ_ORIGIN).as_deref(),
        Some("billing.a.b")
    );
    stage.end().await
}

async fn failing_copy() -> Outcome {
    let stage = Stage::new().await?;
    let mut wanted = subscription("a.b");
    wanted.topology = TopologyMode::Off;
    wanted.rabbitmq.queue = Some("theirs".to_owned());
    stage
        .management()
        .declare_queue("theirs", json!({ "x-queue-type": "quorum" }))
        .await?;
    stage
        .management()
        .bind_queue("interline", "theirs", "a.b")
        .await?;
    let mut inbox = Inbox::open(&stage.broker, wanted).await?;
    stage.broker.publish(message("a.b", "1", "{}")).await?;
    let delivery = inbox.next().await;
    let incoming = delivery.incoming;
    let headers = incoming.headers.clone();
    let error = delivery
        .settlement
        .dead_letter(incoming, headers)
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "broker `main`: queue `theirs.dlq`: it does not exist"
    );
    let back = inbox.next().await;
    assert!(back.incoming.redelivered);
    assert_eq!(back.incoming.id.as_str(), "1");
    assert_eq!(back.settlement.done().await?, Settled::Yes);
    stage.end().await
}

async fn failing_copy_in_order() -> Outcome {
    let stage = Stage::new().await?;
    let mut wanted = subscription("a.b");
    wanted.topology = TopologyMode::Off;
    wanted.ordered_by = Some(OrderedBy::Key);
    wanted.rabbitmq.queue = Some("theirs".to_owned());
    let in_turns = json!({ "x-queue-type": "quorum", "x-single-active-consumer": true });
    let management = stage.management();
    management.declare_queue("theirs", in_turns).await?;
    management.bind_queue("interline", "theirs", "a.b").await?;
    let mut inbox = Inbox::open(&stage.broker, wanted).await?;
    for id in ["1", "2"] {
        stage.broker.publish(message("a.b", id, "{}")).await?;
    }
    let (one, two) = (inbox.next().await, inbox.next().await);
    let incoming = one.incoming;
    let headers = incoming.headers.clone();
    let dead = tokio::spawn(one.settlement.dead_letter(incoming, headers));
    // It is not handed out again behind the other one.
    assert!(inbox.is_quiet(Duration::from_secs(2)).await);
    assert!(!dead.is_finished());
    let quorum = json!({ "x-queue-type": "quorum" });
    management.declare_queue("theirs.dlq", quorum).await?;
    assert_eq!(dead.await??, Settled::Yes);
    assert_eq!(two.settlement.done().await?, Settled::Yes);
    assert!(inbox.deliveries.try_recv().is_err());
    stage.end().await
}

async fn flushed() -> Outcome {
    let stage = Stage::new().await?;
    let rounds = if harness::soak() { 100 } else { 12 };
    let (mut came_back, mut slowest) = (Vec::new(), Duration::ZERO);
    for round in 0..rounds {
        let broker = broker(
            &stage.vhost.url,
            "two",
            &InMemoryMetrics::default(),
            |config| config,
        );
        broker.connect().await?;
        let mut wanted = subscription("a.b");
        wanted.prefetch = 2_000;
        let mut inbox = Inbox::open(&broker, wanted).await?;
        let publishes = (0..2_000).map(|index| {
            let outgoing = message("a.b", &format!("{round}-{index}"), vec![b'x'; 512]);
            broker.publish(outgoing)
        });
        for outcome in futures_util::future::join_all(publishes).await {
            outcome?;
        }
        let mut running = Vec::new();
        for _ in 0..2_000 {
            running.push(inbox.next().await.settlement);
        }
        // As an app ends: it stops fetching, what runs is finished, and then it closes.
        inbox.consumer.stop().await;
        let settling = running.into_iter().map(|settlement| settlement.done());
        for settled in futures_util::future::join_all(settling).await {
            assert_eq!(settled?, Settled::Yes);
        }
        let begun = Instant::now();
        broker.disconnect(tokio::time::Instant::now() + LIMIT).await;
        slowest = slowest.max(begun.elapsed());
        let counted = |queue: &Queue| queue.consumers == Some(0) && queue.messages().is_some();
        let queue = stage
            .management()
            .wait_for_queue("billing.a.b", counted, LIMIT)
            .await?;
        let mut left = queue.messages().unwrap_or_default();
        if left > 0 {
            // The count may be old; what is really there can be fetched.
            left = drain(&stage.vhost.url, "billing.a.b").await?;
        }
        came_back.push(left);
    }
    println!("came back per round: {came_back:?}; slowest disconnect {slowest:?}");
    assert_eq!(came_back.iter().sum::<u64>(), 0, "{came_back:?}");
    stage.end().await
}

async fn drain(url: &str, queue: &str) -> Result<u64, crate::support::Error> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    let options = lapin::options::BasicGetOptions { no_ack: true };
    let mut count = 0;
    while channel.basic_get(queue.into(), options).await?.is_some() {
        count += 1;
    }
    connection.close(200, "OK".into()).await?;
    Ok(count)
}
