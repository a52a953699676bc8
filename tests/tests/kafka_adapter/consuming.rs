//! Consuming: polling never waits, positions never pass what is unfinished, memory stays bounded.

use std::collections::BTreeSet;
use std::time::Duration;

use interline::messaging::{ConsumerState, MessageBroker, Settled};
use interline::observability::metrics::{CONSUMER_LAG, STALE_SETTLEMENTS};
use interline_tests::harness::Case;
use tokio::time::{Instant, sleep};

use crate::support::{
    Inbox, LIMIT, Outcome, Stage, close, eventually, message, publish, subscription, text,
};

pub fn cases() -> Vec<Case> {
    vec![
        Case::new("a_slow_handler_keeps_its_partition", slow_handler),
        Case::new(
            "what_was_finished_out_of_order_is_not_handled_again",
            async || finished_out_of_order(Stage::new().await?).await,
        ),
        Case::new(
            "what_was_finished_out_of_order_is_not_handled_again_new_protocol",
            async || finished_out_of_order(Stage::of_new_protocol().await?).await,
        ),
        Case::new("a_backlog_is_read_in_order_within_bounds", backlog),
        Case::new("a_topic_made_anew_is_read_from_its_beginning", made_anew),
        Case::new("the_lag_is_told", lag),
        Case::new("a_trickle_hands_out_no_more_than_it_says", trickle),
    ]
}

/// A handler that takes three times `max.poll.interval.ms`.
async fn slow_handler() -> Outcome {
    let stage = Stage::new().await?;
    let interval = Duration::from_secs(2);
    let broker = stage
        .connected_with("one", |config| {
            config.with("brokers.main.max_poll_interval", interval)
        })
        .await?;
    let mut inbox = Inbox::open(&broker, subscription("t")).await?;
    publish(&broker, message("t", "slow")).await;
    let slow = inbox.next().await;
    let end = Instant::now() + 3 * interval;
    let mut number = 0;
    while Instant::now() < end {
        // The others go on meanwhile.
        publish(&broker, message("t", &number.to_string())).await;
        assert_eq!(text(&inbox.take().await), number.to_string());
        number += 1;
        sleep(Duration::from_millis(300)).await;
    }
    assert!(slow.settlement.is_current(), "the partition was taken away");
    assert_eq!(slow.settlement.done().await?, Settled::Yes);
    assert_eq!(stage.metrics.sum(STALE_SETTLEMENTS, &[]), 0.0);
    inbox.expect_quiet(Duration::from_millis(500)).await;
    close(&broker).await;
    Ok(())
}

async fn finished_out_of_order(stage: Stage) -> Outcome {
    let one = stage.connected("one").await?;
    let mut inbox = Inbox::open(&one, subscription("t")).await?;
    for number in 0..20 {
        publish(&one, message("t", &number.to_string())).await;
    }
    let mut unfinished = BTreeSet::new();
    let mut kept = Vec::new();
    for number in 0..20 {
        let delivery = inbox.next().await;
        if number % 5 == 0 {
            unfinished.insert(text(&delivery.incoming));
            kept.push(delivery);
        } else {
            delivery.settlement.done().await?;
        }
    }
    close(&one).await;
    for delivery in kept {
        assert_eq!(delivery.settlement.done().await?, Settled::Stale);
    }
    let two = stage.connected("two").await?;
    let mut inbox = Inbox::open(&two, subscription("t")).await?;
    let mut again = BTreeSet::new();
    while again.len() < unfinished.len() {
        let incoming = inbox.take().await;
        assert!(incoming.redelivered, "{}", text(&incoming));
        again.insert(text(&incoming));
    }
    assert_eq!(again, unfinished);
    inbox.expect_quiet(Duration::from_millis(500)).await;
    close(&two).await;
    Ok(())
}

async fn backlog() -> Outcome {
    const COUNT: usize = 6_000;
    let stage = Stage::new().await?;
    let broker = stage.connected("one").await?;
    let mut wanted = subscription("t");
    wanted.prefetch = 4;
    let mut inbox = Inbox::open(&broker, wanted).await?;
    let all = (0..COUNT).map(|number| publish_padded(&broker, number));
    futures_util::future::join_all(all).await;
    // One lane: what was published one after the other comes so.
    let mut seen = BTreeSet::new();
    for _ in 0..COUNT {
        let incoming = inbox.take().await;
        assert!(!incoming.redelivered);
        assert!(
            seen.insert(incoming.id.clone()),
            "{} came twice",
            incoming.id
        );
    }
    inbox.expect_quiet(Duration::from_millis(500)).await;
    close(&broker).await;
    Ok(())
}

async fn publish_padded(broker: &interline::messaging::kafka::Kafka, number: usize) {
    let mut outgoing = message("t", &number.to_string());
    outgoing.body = vec![b'x'; 4_096].into();
    publish(broker, outgoing).await;
}

async fn made_anew() -> Outcome {
    let stage = Stage::new().await?;
    let broker = stage.connected("one").await?;
    let mut inbox = Inbox::open(&broker, subscription("t")).await?;
    for number in 0..5 {
        publish(&broker, message("t", &number.to_string())).await;
        inbox.take().await;
    }
    stage.delete_topic("t").await?;
    let deadline = Instant::now() + 2 * LIMIT;
    let mut number = 5;
    // Made by the first publish that finds it missing.
    let came = loop {
        assert!(Instant::now() < deadline, "nothing came from the new topic");
        let mut outgoing = message("t", &number.to_string());
        outgoing.subscribers_optional = true;
        number += 1;
        // A publish can still reach the old one.
        if broker.publish(outgoing).await.is_err() {
            continue;
        }
        let next = tokio::time::timeout(Duration::from_secs(2), inbox.deliveries.recv()).await;
        if let Ok(Some(delivery)) = next {
            delivery.settlement.done().await?;
            break delivery.incoming;
        }
    };
    assert!(text(&came).parse::<u32>()? >= 5);
    close(&broker).await;
    Ok(())
}

async fn lag() -> Outcome {
    let stage = Stage::new().await?;
    let broker = stage
        .connected_with("one", |config| {
            config.with("brokers.main.librdkafka.statistics_interval_ms", 200)
        })
        .await?;
    let mut wanted = subscription("t");
    wanted.prefetch = 1;
    let mut inbox = Inbox::open(&broker, wanted).await?;
    for number in 0..5 {
        publish(&broker, message("t", &number.to_string())).await;
    }
    let lag = || stage.metrics.sum(CONSUMER_LAG, &[("broker", "main")]);
    eventually(|| lag() == 5.0, || lag().to_string()).await;
    for _ in 0..5 {
        inbox.take().await;
    }
    eventually(|| lag() == 0.0, || lag().to_string()).await;
    close(&broker).await;
    Ok(())
}

async fn trickle() -> Outcome {
    let stage = Stage::new().await?;
    let broker = stage.connected("one").await?;
    let mut inbox = Inbox::open(&broker, subscription("t")).await?;
    inbox.consumer.pause().await;
    inbox.until(|state| *state == ConsumerState::Paused).await;
    for number in 0..5 {
        publish(&broker, message("t", &number.to_string())).await;
    }
    inbox.consumer.trickle(1).await;
    let first = inbox.next().await;
    inbox.expect_quiet(Duration::from_millis(500)).await;
    first.settlement.done().await?;
    let second = inbox.next().await;
    inbox.consumer.resume().await;
    assert_eq!(text(&inbox.take().await), "2");
    second.settlement.done().await?;
    close(&broker).await;
    Ok(())
}
