//! Confirmed, unroutable, refused, lost.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::{OptionFuture, join, join_all};
use interline::PublishError;
use interline::handling::PublishErrorKind;
use interline::message::headers::name;
use interline::message::{RabbitMqPublish, ReplyAddress};
use interline::messaging::{ConnectionState, MessageBroker, ReplyEvent};
use interline::observability::metrics::InMemoryMetrics;
use interline::testing::ServerFixture;
use interline_tests::harness::Case;
use interline_tests::servers::Vhost;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use crate::support::{Inbox, LIMIT, Outcome, Stage, broker, message, subscription, until_state};

pub fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "many_open_publishes_each_get_their_own_outcome",
            own_outcome,
        ),
        Case::new("a_full_queue_refuses", refused),
        Case::new(
            "a_refused_message_brings_another_channel_and_the_order_stays",
            renewed,
        ),
        Case::new(
            "a_refused_request_brings_another_channel_and_replies_find_the_one_before",
            refused_request,
        ),
        Case::new(
            "a_missing_exchange_fails_its_own_publishes_only",
            missing_exchange,
        ),
        Case::new("a_blocked_server_holds_publishes_back", blocked),
    ]
}

fn kind(outcome: Result<(), PublishError>) -> Option<PublishErrorKind> {
    outcome.err().map(|error| error.kind())
}

async fn own_outcome() -> Outcome {
    let stage = Stage::new().await?;
    let inbox = Inbox::open(&stage.broker, subscription("orders.placed")).await?;
    // Returned messages and acknowledgements of several at once cross each other here.
    for round in 0..5 {
        let publishes = (0..1_000).map(|index| {
            let heard = index % 3 != round % 3;
            let topic = if heard {
                "orders.placed"
            } else {
                "orders.nobody"
            };
            let mut outgoing = message(topic, &format!("{round}-{index}"), "{}");
            let optional = index % 7 == 0;
            outgoing.subscribers_optional = optional;
            let broker = &stage.broker;
            async move { (heard || optional, broker.publish(outgoing).await) }
        });
        for (fine, outcome) in timeout(LIMIT, join_all(publishes)).await? {
            let expected = (!fine).then_some(PublishErrorKind::Unroutable);
            assert_eq!(kind(outcome), expected);
        }
    }
    let error = stage
        .broker
        .publish(message("orders.nobody", "last", "{}"))
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "`orders.nobody` was not published: no queue is bound for it to exchange `interline`"
    );
    assert_eq!(error.into_outgoing().unwrap().id.as_str(), "last");
    inbox.consumer.stop().await;
    stage.end().await
}

async fn refused() -> Outcome {
    let stage = Stage::new().await?;
    let arguments = json!({ "x-max-length": 1, "x-overflow": "reject-publish" });
    stage.management().declare_queue("tiny", arguments).await?;
    stage
        .management()
        .bind_queue("interline", "tiny", "a.b")
        .await?;
    assert_eq!(
        kind(stage.broker.publish(message("a.b", "1", "{}")).await),
        None
    );
    let outcome = stage.broker.publish(message("a.b", "2", "{}")).await;
    assert_eq!(kind(outcome), Some(PublishErrorKind::Nacked));
    stage.end().await
}

async fn renewed() -> Outcome {
    // So few are begun one after the other by one poll.
    const BATCH: u32 = 30;
    let stage = Stage::new().await?;
    let arguments = json!({ "x-max-length": 1, "x-overflow": "reject-publish" });
    stage.management().declare_queue("tiny", arguments).await?;
    stage
        .management()
        .bind_queue("interline", "tiny", "a.full")
        .await?;
    let mut inbox = Inbox::open(&stage.broker, subscription("a.b")).await?;
    let full = |id: &str| stage.broker.publish(message("a.full", id, "{}"));
    assert_eq!(kind(full("first").await), None);
    let publishes = (0..4).map(|index| message("a.b", &format!("before-{index}"), "{}"));
    for outgoing in publishes {
        stage.broker.publish(outgoing).await?;
        inbox.take().await;
    }
    let mut before = BTreeSet::new();
    until("both channels are listed", async || {
        before = publishing_channels(&stage.vhost).await?;
        Ok(before.len() == 2)
    })
    .await?;
    let mut count = 0_u32;
    until(
        "another has followed and the one before is closed",
        async || {
            let publishes = (count..count + BATCH).map(|index| {
                let mut outgoing = message("a.b", &index.to_string(), "{}");
                outgoing.key = Some("one".to_owned());
                let refused = (index % 10 == 5).then(|| full(&format!("full-{index}")));
                let publish = stage.broker.publish(outgoing);
                async move { join(publish, OptionFuture::from(refused)).await }
            });
            for (published, refused) in timeout(LIMIT, join_all(publishes)).await? {
                assert_eq!(kind(published), None);
                if let Some(refused) = refused {
                    assert_eq!(kind(refused), Some(PublishErrorKind::Nacked));
                }
            }
            for index in count..count + BATCH {
                assert_eq!(inbox.take().await.id.as_str(), index.to_string());
            }
            count += BATCH;
            let now = publishing_channels(&stage.vhost).await?;
            Ok(now.len() == 2 && now != before)
        },
    )
    .await?;
    inbox.consumer.stop().await;
    stage.end().await
}

async fn refused_request() -> Outcome {
    let stage = Stage::new().await?;
    let arguments = json!({ "x-max-length": 1, "x-overflow": "reject-publish" });
    stage.management().declare_queue("tiny", arguments).await?;
    stage
        .management()
        .bind_queue("interline", "tiny", "a.full")
        .await?;
    assert_eq!(
        kind(stage.broker.publish(message("a.full", "1", "{}")).await),
        None
    );
    let mut inbox = Inbox::open(&stage.broker, subscription("a.b")).await?;
    let (sender, mut events) = mpsc::channel(64);
    let requests = stage.broker.requests(sender).await?;
    let before = requests.send(message("a.b", "before", "{}")).await?;
    let asked = inbox.take().await;
    let refused = requests.send(message("a.full", "2", "{}")).await;
    assert_eq!(kind(refused.map(drop)), Some(PublishErrorKind::Nacked));
    until("another channel has followed", async || {
        let epoch = requests.send(message("a.b", "after", "{}")).await?;
        inbox.take().await;
        Ok(epoch > before)
    })
    .await?;
    let to = asked
        .headers
        .text(name::REPLY_TO)
        .expect("it says where to");
    let to = ReplyAddress::parse(&to).expect("a good address");
    stage
        .broker
        .reply(to, message("answers", "r", "{}"))
        .await?;
    match timeout(LIMIT, events.recv()).await? {
        Some(ReplyEvent::Reply(reply)) => assert_eq!(reply.id.as_str(), "r"),
        other => panic!("{other:?}"),
    }
    inbox.consumer.stop().await;
    stage.end().await
}

/// The channels that publish, by their names.
async fn publishing_channels(vhost: &Vhost) -> Result<BTreeSet<String>, crate::support::Error> {
    let all: Vec<Value> = vhost
        .management
        .get(&["vhosts", &vhost.name, "channels"])
        .await?;
    let publishing = all.iter().filter(|channel| channel["confirm"] == true);
    Ok(publishing
        .filter_map(|channel| channel["name"].as_str().map(str::to_owned))
        .collect())
}

async fn until(
    what: &str,
    mut look: impl AsyncFnMut() -> Result<bool, crate::support::Error>,
) -> Outcome {
    let deadline = Instant::now() + LIMIT;
    while !look().await? {
        assert!(Instant::now() < deadline, "never came true: {what}");
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

async fn missing_exchange() -> Outcome {
    let stage = Stage::new().await?;
    stage.management().declare_queue("q", json!({})).await?;
    stage
        .management()
        .bind_queue("interline", "q", "a.b")
        .await?;
    let to = |exchange: &'static str, id: &str| {
        let mut outgoing = message("a.b", id, "{}");
        outgoing.rabbitmq = RabbitMqPublish::default();
        outgoing.rabbitmq.exchange = Some(exchange.into());
        outgoing
    };
    let publishes = (0..100).map(|index| {
        let (missing, id) = (index == 50, index.to_string());
        let outgoing = if missing {
            to("nope", &id)
        } else {
            message("a.b", &id, "{}")
        };
        let broker = &stage.broker;
        async move { (missing, broker.publish(outgoing).await) }
    });
    for (missing, outcome) in timeout(LIMIT, join_all(publishes)).await? {
        match outcome {
            Ok(()) => assert!(!missing),
            Err(error) => {
                assert!(missing, "{error}");
                assert_eq!(error.kind(), PublishErrorKind::Unroutable);
                assert!(
                    error
                        .to_string()
                        .ends_with("exchange `nope` does not exist"),
                    "{error}"
                );
            }
        }
    }
    // The channel that it cost is there again, and so is a foreign exchange that exists.
    stage
        .management()
        .declare_exchange("theirs", "fanout")
        .await?;
    stage.management().bind_queue("theirs", "q", "").await?;
    assert_eq!(kind(stage.broker.publish(to("theirs", "x")).await), None);
    stage.end().await
}

async fn blocked() -> Outcome {
    // A server that always finds its memory too full takes no publishes at all.
    let server = ServerFixture::rabbitmq()
        .config_line("vm_memory_high_watermark.absolute = 1MB")
        .start()
        .await?;
    if !server.is_ours() {
        return Ok(());
    }
    let broker = broker(server.url(), "one", &InMemoryMetrics::default(), |config| {
        config
    });
    broker.connect().await?;
    // It says so to whoever has published for the first time.
    let first = broker.publish(message("a.b", "1", "{}"));
    let _ = timeout(Duration::from_secs(2), first).await;
    until_state(&broker, ConnectionState::Blocked).await;
    let second = broker.publish(message("a.b", "2", "{}"));
    let waited = timeout(Duration::from_secs(2), second).await;
    assert!(waited.is_err(), "{waited:?}");
    broker
        .disconnect(Instant::now() + Duration::from_secs(2))
        .await;
    assert_eq!(broker.health_check().state, ConnectionState::Closed);
    Ok(())
}
