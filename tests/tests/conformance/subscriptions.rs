//! Who gets what: groups, instances, patterns, from when on, topology.

use std::sync::Arc;
use std::time::Duration;

use interline::message::TopicPattern;
use interline::messaging::{ConsumerState, Group, Settled, Start, Subscription, TopologyMode};

use crate::world::{Outcome, World, cases, message, subscription, text};

cases![
    a_group_shares_and_each_group_gets_every_message,
    a_pattern_gets_all_its_topics_and_only_those,
    a_redeploy_with_other_settings_changes_nothing,
    a_subscription_misses_nothing_from_when_it_is_applied,
    an_earliest_start_reads_what_the_broker_still_has,
    each_instance_gets_every_message_and_its_queue_goes_with_it,
    what_is_missing_is_told_by_verify,
];

async fn a_group_shares_and_each_group_gets_every_message(world: Arc<World>) -> Outcome {
    let (one, two) = (world.process("1").await, world.process("2").await);
    let shared = |group: &str| {
        let mut shared = subscription("t", group);
        shared.kafka.partitions = Some(4);
        shared.prefetch = 5;
        shared
    };
    let mut a1 = one.read(&shared("a")).await;
    let mut a2 = two.read(&shared("a")).await;
    let mut b = two.read(&shared("b")).await;
    // The partitions are shared out anew when the second one has come.
    world.until_shared("a", 2).await?;
    for body in 0..10 {
        let mut outgoing = message("t", &body.to_string());
        outgoing.key = Some(format!("k{body}"));
        one.publish(outgoing).await;
    }
    assert_eq!(b.take_all(10).await.len(), 10);
    let mut shared = Vec::new();
    if world.is_kafka() {
        // Which of them gets a message is the partition's business.
        let (mut first, mut second) = (0, 0);
        while first + second < 10 {
            tokio::select! {
                body = a1.take() => { shared.push(body); first += 1; }
                body = a2.take() => { shared.push(body); second += 1; }
            }
        }
        assert!(first > 0 && second > 0, "{first} and {second}");
    } else {
        // Neither gets more than its prefetch before anything is settled.
        let mut held = Vec::new();
        for reader in [&mut a1, &mut a2] {
            for _ in 0..5 {
                held.push(reader.next().await);
            }
        }
        for (incoming, settlement) in held {
            assert_eq!(settlement.done().await?, Settled::Yes);
            shared.push(text(&incoming));
        }
    }
    shared.sort();
    assert_eq!(shared, ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]);
    a1.expect_quiet().await;
    a2.expect_quiet().await;
    b.expect_quiet().await;
    Ok(())
}

async fn each_instance_gets_every_message_and_its_queue_goes_with_it(world: Arc<World>) -> Outcome {
    let each = |instance: &str| {
        let group = Group::EachInstance {
            service: "billing".into(),
            instance: instance.into(),
            subscriber: "refresh".into(),
        };
        let topic = TopicPattern::parse("t").expect("a valid topic");
        Subscription::new(topic, group)
    };
    let (one, two) = (world.process("1").await, world.process("2").await);
    let mut first = one.read(&each("1")).await;
    let mut second = two.read(&each("2")).await;
    one.publish(message("t", "1")).await;
    assert_eq!(first.take().await, "1");
    assert_eq!(second.take().await, "1");
    one.close().await;
    two.publish(message("t", "2")).await;
    assert_eq!(second.take().await, "2");
    two.close().await;
    let three = world.process("3").await;
    let gone = three.broker.publish(message("t", "3")).await;
    // A topic of Kafka stays.
    assert_eq!(gone.is_err(), !world.is_kafka(), "the queues are gone");
    Ok(())
}

async fn a_pattern_gets_all_its_topics_and_only_those(world: Arc<World>) -> Outcome {
    let process = world.process("1").await;
    let wanted = subscription("orders.{region}.placed", "g");
    if !world.has_patterns() {
        let (sender, _deliveries) = tokio::sync::mpsc::channel(1);
        let refused = process.broker.subscribe(Arc::new(wanted), sender).await;
        let error = refused.err().expect("it is refused").to_string();
        assert!(error.contains("orders.{region}.placed"), "{error}");
        return Ok(());
    }
    let mut reader = process.read(&wanted).await;
    for topic in ["orders.eu.placed", "orders.us.placed"] {
        let mut outgoing = message(topic, "x");
        // The topic itself may not be there yet.
        outgoing.subscribers_optional = true;
        process.publish(outgoing).await;
        let (incoming, settlement) = reader.next().await;
        assert_eq!(&*incoming.topic, topic);
        settlement.done().await?;
    }
    for topic in ["orders.placed", "orders.eu.x.placed", "orders.eu.paid"] {
        let published = process.broker.publish(message(topic, "x")).await;
        assert!(published.is_err(), "{topic}");
    }
    reader.expect_quiet().await;
    Ok(())
}

async fn a_subscription_misses_nothing_from_when_it_is_applied(world: Arc<World>) -> Outcome {
    let wanted = subscription("t", "g");
    let one = world.process("1").await;
    let mut before = message("t", "before");
    before.subscribers_optional = true;
    one.publish(before).await;
    one.apply(&wanted).await;
    one.apply(&wanted).await;
    one.publish(message("t", "after")).await;
    one.close().await;
    let two = world.process("2").await;
    two.publish(message("t", "later")).await;
    let mut reader = two.read(&wanted).await;
    assert_eq!(reader.take_all(2).await, ["after", "later"]);
    reader.expect_quiet().await;
    Ok(())
}

async fn an_earliest_start_reads_what_the_broker_still_has(world: Arc<World>) -> Outcome {
    let process = world.process("1").await;
    let mut before = message("t", "before");
    before.subscribers_optional = true;
    process.publish(before).await;
    let mut wanted = subscription("t", "g");
    wanted.start = Start::Earliest;
    let mut reader = process.read(&wanted).await;
    process.publish(message("t", "after")).await;
    if world.keeps_history() {
        assert_eq!(reader.take().await, "before");
    }
    // RabbitMQ keeps nothing that no queue was there for.
    assert_eq!(reader.take().await, "after");
    reader.expect_quiet().await;
    process.close().await;
    let process = world.process("2").await;
    let mut reader = process.read(&wanted).await;
    reader.expect_quiet().await;
    Ok(())
}

async fn a_redeploy_with_other_settings_changes_nothing(world: Arc<World>) -> Outcome {
    let one = world.process("1").await;
    let mut wanted = subscription("t", "g");
    one.apply(&wanted).await;
    one.publish(message("t", "1")).await;
    wanted.prefetch = 1;
    wanted.ladder = [7].map(Duration::from_secs).into();
    let two = world.process("2").await;
    two.apply(&wanted).await;
    let mut reader = two.read(&wanted).await;
    assert_eq!(reader.take().await, "1");
    Ok(())
}

async fn what_is_missing_is_told_by_verify(world: Arc<World>) -> Outcome {
    let process = world.process("1").await;
    // The exchange is there, as on a server that somebody else prepared.
    process.apply(&subscription("other", "g")).await;
    let mut verify = subscription("t", "g");
    verify.topology = TopologyMode::Verify;
    let topology = process.broker.topology(&[Arc::new(verify.clone())]);
    let error = process.broker.apply(&topology).await;
    let error = error.expect_err("nothing is there").to_string();
    assert!(error.contains("g.t"), "{error}");
    let reader = process.read_when_possible(&verify).await;
    crate::world::until(
        "the consumer says what is missing",
        || matches!(reader.consumer.state(), ConsumerState::Failed(why) if why.contains("g.t")),
    )
    .await;
    process.apply(&subscription("t", "g")).await;
    process.broker.apply(&topology).await?;
    Ok(())
}
