//! Deliveries, prefetch, losses and how they heal.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use interline::message::Place;
use interline::message::headers::name;
use interline::messaging::{
    ConnectionState, ConsumerState, Group, MessageBroker, OrderedBy, Settled,
};
use interline::observability::metrics::{InMemoryMetrics, RECONNECTS, STALE_SETTLEMENTS};
use interline::testing::ServerFixture;
use interline_tests::harness::Case;
use interline_tests::management::{Management, Queue};
use lapin::options::BasicPublishOptions;
use lapin::{BasicProperties, Connection, ConnectionProperties};
use tokio::time::sleep;

use crate::support::{Inbox, LIMIT, Outcome, Stage, broker, message, subscription, until_state};

pub fn cases() -> Vec<Case> {
    vec![
        Case::new("a_message_arrives_as_it_was_sent", arrives),
        Case::new("a_lost_connection_comes_back_with_its_prefetch", reconnects),
        Case::new(
            "a_deleted_queue_is_made_again_under_its_consumer",
            deleted_queue,
        ),
        Case::new(
            "a_paused_consumer_fetches_nothing_and_settles_still",
            paused,
        ),
        Case::new(
            "a_paused_reader_of_what_is_ordered_keeps_what_comes_in_its_order",
            paused_in_order,
        ),
        Case::new("a_stopped_consumer_pushes_nothing_more", stopped),
        Case::new("every_instance_gets_every_message", each_instance),
        Case::new("a_killed_server_is_consumed_again_soon", killed_server),
        Case::new(
            "a_delivery_timeout_of_the_server_is_survived",
            delivery_timeout,
        ),
    ]
}

async fn arrives() -> Outcome {
    let stage = Stage::new().await?;
    let mut inbox = Inbox::open(&stage.broker, subscription("orders.{region}.placed")).await?;
    let mut outgoing = message("orders.eu.placed", "m-1", vec![0, 159, 146, 150]);
    outgoing.key = Some("o-7".to_owned());
    outgoing.headers.set("x-flag", true);
    outgoing.headers.set("x-count", 7_i64);
    stage.broker.publish(outgoing).await?;
    let incoming = inbox.take().await;
    assert_eq!(&*incoming.topic, "orders.eu.placed");
    assert_eq!(&incoming.body[..], [0, 159, 146, 150]);
    assert_eq!(incoming.id.as_str(), "m-1");
    assert_eq!(incoming.key.as_deref(), Some("o-7"));
    assert_eq!((incoming.attempt, incoming.redelivered), (1, false));
    assert_eq!(incoming.headers.get("x-flag"), Some(&true.into()));
    assert_eq!(incoming.headers.get("x-count"), Some(&7_i64.into()));
    assert_eq!(
        incoming.headers.text(name::CONTENT_TYPE).as_deref(),
        Some("application/json")
    );
    let expected = Place::RabbitMq {
        exchange: "interline".into(),
        routing_key: "orders.eu.placed".into(),
        queue: "billing.orders.{region}.placed".into(),
    };
    assert_eq!(incoming.origin.place, expected);
    // Empty and large bodies.
    for body in [Vec::new(), vec![7; 10_000_000]] {
        stage
            .broker
            .publish(message("orders.eu.placed", "m-2", body.clone()))
            .await?;
        assert!(inbox.take().await.body == body);
    }
    stage.end().await
}

async fn reconnects() -> Outcome {
    let stage = Stage::new().await?;
    let mut wanted = subscription("a.b");
    wanted.prefetch = 5;
    let mut inbox = Inbox::open(&stage.broker, wanted).await?;
    for index in 0..200 {
        stage
            .broker
            .publish(message("a.b", &index.to_string(), "{}"))
            .await?;
    }
    let mut old = Vec::new();
    for _ in 0..5 {
        old.push(inbox.next().await);
    }
    assert!(inbox.is_quiet(Duration::from_millis(300)).await);
    // The management API lists a connection only after a while.
    let asked = Instant::now();
    while stage.management().connections().await?.len() < 2 {
        assert!(asked.elapsed() < LIMIT);
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(stage.management().close_connections().await?, 2);
    // The same five come again, on another epoch, and no more than five.
    let mut new = Vec::new();
    for _ in 0..5 {
        new.push(inbox.next().await);
    }
    assert!(inbox.is_quiet(Duration::from_millis(500)).await);
    assert!(new.iter().all(|delivery| delivery.incoming.redelivered));
    for delivery in old {
        assert!(!delivery.settlement.is_current());
        assert_eq!(delivery.settlement.done().await?, Settled::Stale);
    }
    for delivery in new {
        assert_eq!(delivery.settlement.done().await?, Settled::Yes);
    }
    for _ in 5..200 {
        inbox.take().await;
    }
    assert_eq!(stage.metrics.sum(RECONNECTS, &[("broker", "main")]), 1.0);
    assert_eq!(
        stage
            .metrics
            .sum(STALE_SETTLEMENTS, &[("subscription", "billing.a.b")]),
        5.0
    );
    assert_eq!(stage.broker.health_check().state, ConnectionState::Ready);
    let is_empty = |queue: &Queue| queue.messages() == Some(0);
    stage
        .management()
        .wait_for_queue("billing.a.b", is_empty, LIMIT)
        .await?;
    stage.end().await
}

async fn deleted_queue() -> Outcome {
    let stage = Stage::new().await?;
    let mut inbox = Inbox::open(&stage.broker, subscription("a.b")).await?;
    stage.management().delete_queue("billing.a.b").await?;
    // Until the queue is back, nobody listens.
    let begun = Instant::now();
    while stage
        .broker
        .publish(message("a.b", "1", "{}"))
        .await
        .is_err()
    {
        assert!(begun.elapsed() < LIMIT);
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(inbox.take().await.id.as_str(), "1");
    assert_eq!(inbox.consumer.state(), ConsumerState::Running);
    stage.end().await
}

async fn paused() -> Outcome {
    let stage = Stage::new().await?;
    let mut wanted = subscription("a.b");
    wanted.prefetch = 2;
    let mut inbox = Inbox::open(&stage.broker, wanted).await?;
    for id in ["1", "2", "3", "4"] {
        stage.broker.publish(message("a.b", id, "{}")).await?;
    }
    let (one, two) = (inbox.next().await, inbox.next().await);
    inbox.consumer.pause().await;
    assert_eq!(inbox.consumer.state(), ConsumerState::Paused);
    assert_eq!(one.settlement.done().await?, Settled::Yes);
    assert!(inbox.is_quiet(Duration::from_millis(500)).await);
    inbox.consumer.resume().await;
    // What was out before the pause still counts, so nothing comes on top of it.
    assert!(inbox.is_quiet(Duration::from_millis(500)).await);
    assert_eq!(two.settlement.done().await?, Settled::Yes);
    let three = inbox.next().await;
    assert_eq!(three.incoming.id.as_str(), "3");
    assert_eq!(three.settlement.done().await?, Settled::Yes);
    assert_eq!(inbox.take().await.id.as_str(), "4");
    stage.end().await
}

async fn paused_in_order() -> Outcome {
    const ALL: u64 = 60;
    let stage = Stage::new().await?;
    let mut wanted = subscription("a.b");
    wanted.ordered_by = Some(OrderedBy::Key);
    wanted.prefetch = 100;
    let mut inbox = Inbox::open(&stage.broker, wanted).await?;
    inbox.consumer.pause().await;
    let outside = Connection::connect(&stage.vhost.url, ConnectionProperties::default()).await?;
    let channel = outside.create_channel().await?;
    // Nothing is waited for in between, so that many of them arrive at once.
    let sent = (0..ALL).map(|at| {
        let body = at.to_string().into_bytes();
        let channel = channel.clone();
        async move {
            let options = BasicPublishOptions::default();
            let properties = BasicProperties::default();
            let (exchange, key) = ("interline".into(), "a.b".into());
            channel
                .basic_publish(exchange, key, options, &body, properties)
                .await
        }
    });
    for sent in join_all(sent).await {
        sent?;
    }
    let all_out = |queue: &Queue| queue.messages_unacknowledged == Some(ALL);
    stage
        .management()
        .wait_for_queue("billing.a.b", all_out, LIMIT)
        .await?;
    assert!(inbox.deliveries.try_recv().is_err(), "it is paused");
    inbox.consumer.resume().await;
    for at in 0..ALL {
        assert_eq!(inbox.take().await.body, at.to_string());
    }
    stage.end().await
}

async fn stopped() -> Outcome {
    let stage = Stage::new().await?;
    let mut inbox = Inbox::open(&stage.broker, subscription("a.b")).await?;
    stage.broker.publish(message("a.b", "1", "{}")).await?;
    let one = inbox.next().await;
    inbox.consumer.stop().await;
    assert_eq!(inbox.consumer.state(), ConsumerState::Stopped);
    stage.broker.publish(message("a.b", "2", "{}")).await?;
    assert!(inbox.deliveries.try_recv().is_err());
    assert_eq!(one.settlement.done().await?, Settled::Yes);
    let one_left = |queue: &Queue| queue.messages() == Some(1) && queue.messages_ready == Some(1);
    stage
        .management()
        .wait_for_queue("billing.a.b", one_left, LIMIT)
        .await?;
    stage.end().await
}

async fn each_instance() -> Outcome {
    let stage = Stage::new().await?;
    let other = broker(
        &stage.vhost.url,
        "two",
        &InMemoryMetrics::default(),
        |config| config,
    );
    other.connect().await?;
    let of = |instance: &str| {
        let mut subscription = subscription("a.b");
        subscription.group = Group::EachInstance {
            service: "billing".into(),
            instance: instance.into(),
            subscriber: "audit".into(),
        };
        subscription
    };
    let mut one = Inbox::open(&stage.broker, of("one")).await?;
    let mut two = Inbox::open(&other, of("two")).await?;
    stage.broker.publish(message("a.b", "1", "{}")).await?;
    assert_eq!(one.take().await.id.as_str(), "1");
    let held = two.next().await;
    // Its retry comes back to itself alone, over a queue that goes with it.
    let headers = held.incoming.headers.clone();
    let message = held.incoming;
    held.settlement
        .retry(message, Duration::from_secs(1), headers)
        .await?;
    assert_eq!(two.take().await.id.as_str(), "1");
    assert!(one.is_quiet(Duration::from_millis(200)).await);
    // What it gives up outlives it: any instance lists it, and so does whoever asks from elsewhere.
    stage
        .broker
        .publish(crate::support::message("a.b", "2", "{}"))
        .await?;
    assert_eq!(one.take().await.id.as_str(), "2");
    let given_up = two.next().await;
    let headers = given_up.incoming.headers.clone();
    let message = given_up.incoming;
    given_up.settlement.dead_letter(message, headers).await?;
    other.disconnect(tokio::time::Instant::now() + LIMIT).await;
    let mut elsewhere = subscription("a.b");
    elsewhere.group = Group::Named("billing.audit".into());
    for who in [of("one"), of("three"), elsewhere] {
        let store = stage
            .broker
            .dead_letters()
            .expect("a store of dead letters");
        let kept = store.list(&who, 10).await?;
        let ids: Vec<_> = kept.iter().map(|letter| letter.id.to_string()).collect();
        assert_eq!(ids, ["2"], "{:?}", who.group);
    }
    let names: Vec<_> = stage
        .management()
        .queues()
        .await?
        .into_iter()
        .map(|queue| queue.name)
        .collect();
    assert!(
        names.iter().any(|name| name == "billing.audit.a.b.one"),
        "{names:?}"
    );
    assert!(!names.iter().any(|name| name.contains("two")), "{names:?}");
    stage.end().await
}

async fn killed_server() -> Outcome {
    let server = ServerFixture::rabbitmq().start().await?;
    if !server.is_ours() {
        return Ok(());
    }
    let management = Management::of(&server)?;
    let broker = broker(server.url(), "one", &InMemoryMetrics::default(), |config| {
        config
    });
    broker.connect().await?;
    let mut inbox = Inbox::open(&broker, subscription("a.b")).await?;
    broker.publish(message("a.b", "1", "{}")).await?;
    let held = inbox.next().await;
    let counted = |queue: &Queue| queue.messages() == Some(1);
    management
        .wait_for_queue("billing.a.b", counted, LIMIT)
        .await?;
    server.kill().await?;
    until_state(&broker, ConnectionState::Connecting).await;
    assert_eq!(held.settlement.done().await?, Settled::Stale);
    server.restart().await?;
    let back = Instant::now();
    let again = inbox.next().await;
    assert!(
        back.elapsed() < Duration::from_secs(10),
        "{:?}",
        back.elapsed()
    );
    assert_eq!(again.incoming.id.as_str(), "1");
    assert_eq!(again.settlement.done().await?, Settled::Yes);
    broker.publish(message("a.b", "2", "{}")).await?;
    assert_eq!(inbox.take().await.id.as_str(), "2");
    broker.disconnect(tokio::time::Instant::now() + LIMIT).await;
    Ok(())
}

async fn delivery_timeout() -> Outcome {
    let server = ServerFixture::rabbitmq()
        .consumer_timeout(Duration::from_secs(3))
        .start()
        .await?;
    if !server.is_ours() {
        return Ok(());
    }
    let broker = broker(server.url(), "one", &InMemoryMetrics::default(), |config| {
        config
    });
    broker.connect().await?;
    let mut inbox = Inbox::open(&broker, subscription("a.b")).await?;
    broker.publish(message("a.b", "1", "{}")).await?;
    let slow = inbox.next().await;
    // The server looks at its timeouts only while something happens on the channel.
    let begun = Instant::now();
    let again = loop {
        assert!(begun.elapsed() < 3 * LIMIT);
        broker.publish(message("a.b", "other", "{}")).await?;
        let delivery = inbox.next().await;
        if delivery.incoming.id.as_str() == "1" {
            break delivery;
        }
        // One that crosses the end of the channel comes again too.
        delivery.settlement.done().await?;
        sleep(Duration::from_millis(200)).await;
    };
    assert!(!slow.settlement.is_current());
    assert_eq!(slow.settlement.done().await?, Settled::Stale);
    assert_eq!(again.settlement.done().await?, Settled::Yes);
    assert_eq!(broker.health_check().state, ConnectionState::Ready);
    broker.disconnect(tokio::time::Instant::now() + LIMIT).await;
    Ok(())
}
