//! How dead letters go back to a subscription whose retries have no topic.

use std::time::Duration;

use interline::message::Incoming;
use interline::messaging::kafka::Kafka;
use interline::messaging::{
    BrokerErrorKind, DeadLetterStore, Group, MessageBroker, Subscription, TopologyMode,
};
use interline_tests::harness::Case;

use crate::support::{Inbox, Outcome, Stage, close, message, publish, subscription, text};

pub fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "a_running_subscription_finds_the_topic_that_somebody_else_made",
            found,
        ),
        Case::new("what_lay_in_topics_of_retries_is_read_in_lane_too", former),
        Case::new("letters_of_one_instance_are_not_sent_back", of_instance),
        Case::new("a_topic_that_is_not_ours_to_make_is_named", not_ours),
    ]
}

fn in_lane() -> Subscription {
    let mut wanted = subscription("t");
    wanted.kafka.retry_in_lane = true;
    wanted
}

fn letters(broker: &Kafka) -> &dyn DeadLetterStore {
    broker.dead_letters().expect("it keeps them")
}

async fn bury(broker: &Kafka, inbox: &mut Inbox, body: &str) -> Outcome {
    publish(broker, message("t", body)).await;
    let delivery = inbox.next().await;
    let headers = delivery.incoming.headers.clone();
    delivery
        .settlement
        .dead_letter(delivery.incoming, headers)
        .await?;
    Ok(())
}

fn all(letter: &Incoming) -> Option<interline::Headers> {
    Some(letter.headers.clone())
}

async fn found() -> Outcome {
    let stage = Stage::new().await?;
    let broker = stage.connected("one").await?;
    let mut inbox = Inbox::open(&broker, in_lane()).await?;
    bury(&broker, &mut inbox, "1").await?;
    let operator = stage.connected("operator").await?;
    // It does not know how the service has its retries.
    let unknowing = subscription("t");
    let moved = letters(&operator).redrive(&unknowing, 10, &all).await?;
    assert_eq!(moved, 1);
    assert_eq!(text(&inbox.take().await), "1");
    // The second time the topic is there, and read.
    bury(&broker, &mut inbox, "2").await?;
    let knowing = in_lane();
    let moved = letters(&broker).redrive(&knowing, 10, &all).await?;
    assert_eq!(moved, 1);
    assert_eq!(text(&inbox.take().await), "2");
    inbox.expect_quiet(Duration::from_millis(500)).await;
    close(&operator).await;
    close(&broker).await;
    Ok(())
}

async fn former() -> Outcome {
    let stage = Stage::new().await?;
    let broker = stage.connected("one").await?;
    let mut inbox = Inbox::open(&broker, subscription("t")).await?;
    publish(&broker, message("t", "1")).await;
    let delivery = inbox.next().await;
    let (incoming, headers) = (delivery.incoming.clone(), delivery.incoming.headers.clone());
    let wait = Duration::from_secs(5);
    delivery.settlement.retry(incoming, wait, headers).await?;
    close(&broker).await;
    let broker = stage.connected("two").await?;
    let mut inbox = Inbox::open(&broker, in_lane()).await?;
    assert_eq!(text(&inbox.take().await), "1");
    close(&broker).await;
    Ok(())
}

async fn of_instance() -> Outcome {
    let stage = Stage::new().await?;
    let mut wanted = subscription("t");
    wanted.group = Group::EachInstance {
        service: "billing".into(),
        instance: "one".into(),
        subscriber: "read".into(),
    };
    let broker = stage.connected("one").await?;
    let mut inbox = Inbox::open(&broker, wanted.clone()).await?;
    bury(&broker, &mut inbox, "1").await?;
    let refused = letters(&broker).redrive(&wanted, 10, &all).await;
    let refused = refused.expect_err("there is no way back");
    assert_eq!(refused.kind(), BrokerErrorKind::Unsupported, "{refused}");
    let kept = letters(&broker).list(&wanted, 10).await?;
    assert_eq!(kept.iter().map(text).collect::<Vec<_>>(), ["1"]);
    close(&broker).await;
    Ok(())
}

async fn not_ours() -> Outcome {
    let stage = Stage::new().await?;
    let broker = stage.connected("one").await?;
    let mut inbox = Inbox::open(&broker, in_lane()).await?;
    bury(&broker, &mut inbox, "1").await?;
    let mut wanted = in_lane();
    wanted.topology = TopologyMode::Verify;
    let refused = letters(&broker).redrive(&wanted, 10, &all).await;
    let refused = refused.expect_err("it may not be made");
    assert_eq!(refused.kind(), BrokerErrorKind::NotFound);
    let named = stage.named("t.billing.retry.1s");
    assert!(refused.to_string().contains(&named), "{refused}");
    let kept = letters(&broker).list(&wanted, 10).await?;
    assert_eq!(kept.len(), 1);
    close(&broker).await;
    Ok(())
}
