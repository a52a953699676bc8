//! Exchanges of every kind with bindings of one's own, and priorities: who gets what is decided by
//! the server.

use std::time::Duration;

use interline::PublishError;
use interline::handling::PublishErrorKind;
use interline::message::Outgoing;
use interline::messaging::{
    Argument, ExchangeKind, Group, MessageBroker, QueueKind, Settled, Subscription,
};
use interline_tests::harness::Case;
use lapin::options::BasicGetOptions;
use lapin::{Channel, Connection, ConnectionProperties};

use crate::support::{Error, Inbox, Outcome, Stage, message, subscription};

pub fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "a_headers_exchange_gives_each_what_its_binding_asks_for",
            by_headers,
        ),
        Case::new("a_direct_exchange_gives_each_its_own_key", by_key),
        Case::new(
            "a_fanout_gives_everybody_all_and_a_retry_to_its_own_queue",
            to_all,
        ),
        Case::new(
            "a_queue_with_priorities_hands_out_the_highest_first",
            by_priority,
        ),
    ]
}

/// A subscription of its own group at an exchange of ours.
fn bound(group: &'static str, exchange: &str, kind: ExchangeKind) -> Subscription {
    let mut wanted = subscription("orders.placed");
    wanted.group = Group::Named(group.into());
    wanted.rabbitmq.exchange = Some(exchange.to_owned());
    wanted.rabbitmq.exchange_kind = Some(kind);
    wanted
}

fn sent_to(exchange: &'static str, routing_key: &'static str, id: &str) -> Outgoing {
    let mut outgoing = message("orders.placed", id, "{}");
    outgoing.rabbitmq.exchange = Some(exchange.into());
    outgoing.rabbitmq.routing_key = Some(routing_key.into());
    outgoing
}

fn kind(outcome: Result<(), PublishError>) -> Option<PublishErrorKind> {
    outcome.err().map(|error| error.kind())
}

async fn by_headers() -> Outcome {
    let stage = Stage::new().await?;
    let wanted = |group, rule: &'static str| {
        let mut wanted = bound(group, "sorted", ExchangeKind::Headers);
        wanted.rabbitmq.binding_arguments = [
            ("x-match", Argument::Text(rule)),
            ("region", Argument::Text("eu")),
            ("size", Argument::Int(7)),
            ("express", Argument::Bool(true)),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        wanted
    };
    let mut all = Inbox::open(&stage.broker, wanted("all", "all")).await?;
    let mut any = Inbox::open(&stage.broker, wanted("any", "any")).await?;
    let exchanges = stage.management().exchanges().await?;
    let ours = exchanges.iter().find(|exchange| exchange.name == "sorted");
    let ours = ours.expect("an exchange that was declared");
    assert_eq!((ours.kind.as_str(), ours.durable), ("headers", true));
    let sent = |id, region: &'static str, size: i64, express: bool| {
        let mut outgoing = sent_to("sorted", "", id);
        outgoing.headers.set("region", region);
        outgoing.headers.set("size", size);
        outgoing.headers.set("express", express);
        outgoing
    };
    let broker = &stage.broker;
    // A number is matched as a number, and a truth value as one: a text of them is another thing.
    let mut texts = sent_to("sorted", "", "texts");
    texts.headers.set("size", "7");
    texts.headers.set("express", "true");
    assert_eq!(
        kind(broker.publish(texts).await),
        Some(PublishErrorKind::Unroutable)
    );
    let nothing_fits = sent("nobody", "us", 8, false);
    assert_eq!(
        kind(broker.publish(nothing_fits).await),
        Some(PublishErrorKind::Unroutable)
    );
    for (id, region, size, express) in [
        ("region", "eu", 8, false),
        ("size", "us", 7, false),
        ("express", "us", 8, true),
        ("two", "eu", 7, false),
        ("three", "eu", 7, true),
    ] {
        broker.publish(sent(id, region, size, express)).await?;
    }
    // The last that was sent, so nothing came before it that did not fit.
    assert_eq!(all.take().await.id.as_str(), "three");
    for id in ["region", "size", "express", "two", "three"] {
        assert_eq!(any.take().await.id.as_str(), id);
    }
    stage.end().await
}

async fn by_key() -> Outcome {
    let stage = Stage::new().await?;
    let wanted = |group, key: &str| {
        let mut wanted = bound(group, "jobs", ExchangeKind::Direct);
        wanted.rabbitmq.binding = Some(key.to_owned());
        wanted
    };
    let mut high = Inbox::open(&stage.broker, wanted("high", "job.high")).await?;
    // To a direct exchange a star is a letter like any other.
    let mut star = Inbox::open(&stage.broker, wanted("star", "job.*")).await?;
    for (key, id) in [("job.*", "1"), ("job.high", "2"), ("job.high", "3")] {
        stage.broker.publish(sent_to("jobs", key, id)).await?;
    }
    let outcome = stage.broker.publish(sent_to("jobs", "job.low", "4")).await;
    assert_eq!(kind(outcome), Some(PublishErrorKind::Unroutable));
    assert_eq!(star.take().await.id.as_str(), "1");
    for id in ["2", "3"] {
        let incoming = high.take().await;
        assert_eq!(incoming.id.as_str(), id);
        // What stands on the message, as at any exchange with keys.
        assert_eq!(&*incoming.topic, "job.high");
    }
    let bindings = stage.management().bindings("high.orders.placed").await?;
    let ours: Vec<_> = bindings
        .iter()
        .filter(|binding| !binding.source.is_empty())
        .map(|binding| (binding.source.as_str(), binding.routing_key.as_str()))
        .collect();
    assert_eq!(ours, [("jobs", "job.high")]);
    // What is sent last comes next, so nobody had anything of the other's.
    for (key, id, inbox) in [("job.*", "5", &mut star), ("job.high", "6", &mut high)] {
        stage.broker.publish(sent_to("jobs", key, id)).await?;
        assert_eq!(inbox.take().await.id.as_str(), id);
    }
    stage.end().await
}

async fn to_all() -> Outcome {
    let stage = Stage::new().await?;
    let wanted = |group| bound(group, "news", ExchangeKind::Fanout);
    let mut one = Inbox::open(&stage.broker, wanted("one")).await?;
    let mut two = Inbox::open(&stage.broker, wanted("two")).await?;
    // Whatever its routing key says.
    for (key, id) in [("", "1"), ("anything.at.all", "2")] {
        stage.broker.publish(sent_to("news", key, id)).await?;
        assert_eq!(one.take().await.id.as_str(), id);
    }
    // A retry and a dead letter concern the group that failed, not everybody behind the exchange.
    let failed = two.next().await;
    let headers = failed.incoming.headers.clone();
    failed
        .settlement
        .retry(failed.incoming, Duration::from_secs(1), headers)
        .await?;
    let given_up = two.next().await;
    assert_eq!(given_up.incoming.id.as_str(), "2");
    let headers = given_up.incoming.headers.clone();
    let outcome = given_up
        .settlement
        .dead_letter(given_up.incoming, headers)
        .await?;
    assert_eq!(outcome, Settled::Yes);
    assert_eq!(two.take().await.id.as_str(), "1");
    // What is sent last comes next: the other group had nothing of it.
    stage.broker.publish(sent_to("news", "", "3")).await?;
    for inbox in [&mut one, &mut two] {
        assert_eq!(inbox.take().await.id.as_str(), "3");
    }
    let store = stage.broker.dead_letters().expect("a store of them");
    for (group, expected) in [("one", None), ("two", Some("2"))] {
        let kept = store.list(&wanted(group), 10).await?;
        let ids: Vec<_> = kept.iter().map(|letter| letter.id.to_string()).collect();
        assert_eq!(ids, Vec::from_iter(expected), "{group}");
    }
    stage.end().await
}

async fn by_priority() -> Outcome {
    // With the priority of each; what is above the queue's highest counts as that.
    const SENT: [(&str, Option<u8>); 7] = [
        ("none", None),
        ("one", Some(1)),
        ("five", Some(5)),
        ("three", Some(3)),
        ("nine", Some(9)),
        ("zero", Some(0)),
        ("five-again", Some(5)),
    ];
    const ORDER: [&str; 7] = ["five", "nine", "five-again", "three", "one", "none", "zero"];
    let stage = Stage::new().await?;
    let mut wanted = subscription("orders.placed");
    wanted.prefetch = 1;
    wanted.rabbitmq.queue_kind = Some(QueueKind::Classic);
    wanted.rabbitmq.max_priority = Some(5);
    let mut inbox = Inbox::open(&stage.broker, wanted).await?;
    // The one that is out makes the others wait in the queue, where they have an order.
    stage
        .broker
        .publish(message("orders.placed", "first", ""))
        .await?;
    let first = inbox.next().await;
    let all = async || {
        for (body, priority) in SENT {
            let mut outgoing = message("orders.placed", body, body);
            outgoing.priority = priority;
            stage.broker.publish(outgoing).await?;
        }
        Ok::<(), Error>(())
    };
    all().await?;
    assert_eq!(first.settlement.done().await?, Settled::Yes);
    for body in ORDER {
        assert_eq!(inbox.take().await.body, body);
    }
    // The same for whoever else reads the queue.
    inbox.consumer.stop().await;
    all().await?;
    let outside = Connection::connect(&stage.vhost.url, ConnectionProperties::default()).await?;
    let channel = outside.create_channel().await?;
    for body in ORDER {
        let (read, priority) = got(&channel, "billing.orders.placed").await?;
        assert_eq!(read, body);
        let sent = SENT.iter().find(|(sent, _)| *sent == body);
        assert_eq!(priority, sent.and_then(|(_, priority)| *priority), "{body}");
    }
    outside.close(0, "done".into()).await?;
    stage.end().await
}

/// The next message of a queue as a client of another kind sees it.
async fn got(channel: &Channel, queue: &str) -> Result<(String, Option<u8>), Error> {
    let options = BasicGetOptions { no_ack: true };
    let got = channel.basic_get(queue.into(), options).await?;
    let delivery = got.ok_or("the queue is empty")?.delivery;
    let priority = *delivery.properties.priority();
    Ok((String::from_utf8(delivery.data)?, priority))
}
