//! What is made, what is only looked for, and what a difference sounds like.

use interline::config::Config;
use interline::messaging::{
    Argument, ConsumerState, ExchangeKind, MessageBroker, OrderedBy, QueueKind, TopologyMode,
};
use interline::observability::metrics::InMemoryMetrics;
use interline_tests::harness::Case;
use interline_tests::servers;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

use crate::support::{Inbox, LIMIT, Outcome, Stage, broker, message, subscription};

pub fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "a_difference_fails_its_own_subscription_and_says_what_differs",
            conflict,
        ),
        Case::new("verify_needs_no_permission_to_configure", verify),
        Case::new("what_verify_does_not_find_it_names", verify_missing),
        Case::new("a_printed_topology_can_be_applied", applied),
        Case::new("an_exported_topology_is_imported_and_is_the_same", exported),
        Case::new(
            "an_inspection_tells_what_is_missing_and_what_differs",
            inspected,
        ),
        Case::new(
            "an_inspection_tells_what_is_no_longer_declared_with_its_depth",
            leftover,
        ),
        Case::new("order_by_key_has_one_consumer_at_a_time", single_active),
        Case::new("exchanges_and_queues_are_declared_by_hand", by_hand),
        Case::new("an_existing_estate_is_used_as_it_is", estate),
    ]
}

async fn exported() -> Outcome {
    let stage = Stage::new().await?;
    let ordered = {
        let mut ordered = subscription("a.{b}");
        ordered.ordered_by = Some(OrderedBy::Key);
        Arc::new(ordered)
    };
    let topology = stage
        .broker
        .topology(&[ordered, Arc::new(subscription("c.d"))]);
    let export = stage.broker.export(&topology).expect("it has a form");
    assert_eq!(export.extension, "json");
    let definitions = serde_json::from_str(&export.text)?;
    stage.management().import_definitions(definitions).await?;
    let inspection = stage.broker.inspect(&topology).await?;
    assert!(inspection.is_clean(), "{inspection:?}");
    let bindings = stage.management().bindings("billing.a.{b}").await?;
    let keys: Vec<_> = bindings.iter().map(|one| &*one.routing_key).collect();
    assert!(keys.contains(&"a.*"), "{keys:?}");
    stage.end().await
}

async fn inspected() -> Outcome {
    let stage = Stage::new().await?;
    // As it is wanted but for one argument: the server names the first that differs.
    let differs = json!({
        "x-queue-type": "quorum",
        "x-delivery-limit": 5,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": "billing.a.b.dlq",
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    });
    stage
        .management()
        .declare_queue("billing.a.b", differs)
        .await?;
    let topology = stage
        .broker
        .topology(&[Arc::new(subscription("a.b")), Arc::new(subscription("c.d"))]);
    let inspection = stage.broker.inspect(&topology).await?;
    let missing: Vec<_> = inspection.missing.iter().map(|part| &*part.name).collect();
    assert_eq!(
        missing,
        ["billing.a.b.dlq", "billing.c.d.dlq", "billing.c.d"]
    );
    let different: Vec<_> = inspection
        .different
        .iter()
        .map(|difference| &*difference.part.name)
        .collect();
    assert_eq!(different, ["billing.a.b"]);
    assert!(inspection.different[0].what.contains("x-delivery-limit"));
    assert!(!inspection.unseen.is_empty());
    // A look makes nothing.
    assert!(stage.management().queue("billing.c.d").await?.is_none());
    stage.end().await
}

async fn leftover() -> Outcome {
    let url = servers::rabbitmq().await?.management_url();
    let url = url.expect("a management API").to_owned();
    let stage =
        Stage::with(|config| config.with("brokers.main.management_url", url.as_str())).await?;
    let (now, before) = (subscription("a.b"), subscription("c.{x}.d"));
    let both = [Arc::new(now.clone()), Arc::new(before)];
    stage.broker.apply(&stage.broker.topology(&both)).await?;
    for id in ["1", "2", "3"] {
        stage.broker.publish(message("c.x.d", id, "{}")).await?;
    }
    let management = stage.management();
    management
        .bind_queue("interline", "billing.a.b", "a.old")
        .await?;
    // Of a service whose name begins like ours, and of somebody who has dead letters and nothing else.
    for queue in ["billing.eu.orders", "billing.gone.dlq"] {
        management.declare_queue(queue, json!({})).await?;
    }
    management
        .bind_queue("interline", "billing.eu.orders", "orders")
        .await?;
    let next = subscription("e.f");
    let topology = stage.broker.topology(&[Arc::new(now), Arc::new(next)]);
    let inspection = stage.broker.inspect(&topology).await?;
    let left: Vec<_> = inspection
        .leftover
        .iter()
        .map(|left| (left.kind, &*left.name, left.depth))
        .collect();
    assert_eq!(
        left,
        [
            ("queue", "billing.c.{x}.d", Some(3)),
            ("queue", "billing.c.{x}.d.dlq", Some(0)),
            ("binding", "billing.a.b <- interline (a.old)", None),
        ]
    );
    let missing: Vec<_> = inspection.missing.iter().map(|part| &*part.name).collect();
    assert_eq!(
        missing,
        [
            "billing.e.f.dlq",
            "billing.e.f",
            "billing.e.f <- interline (e.f)"
        ]
    );
    let unseen = inspection.unseen.join("\n");
    assert!(unseen.contains("billing.gone.dlq"), "{unseen}");
    assert!(!unseen.contains("billing.eu"), "{unseen}");
    // Who may not ask is told so, and the rest is seen.
    let behind_user = |url: &str| url.split('@').next_back().expect("a host").to_owned();
    let host = behind_user(&url);
    let amqp = behind_user(servers::rabbitmq().await?.url());
    let amqp = amqp.split('/').next().expect("a host");
    let closed = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    for (url, why) in [
        (
            format!("http://nobody:hunter2@{host}"),
            "refused user `nobody`",
        ),
        (format!("http://{closed}"), "management API at 127.0.0.1:"),
        (format!("http://{amqp}"), "is no management API"),
    ] {
        let change = |config: Config| config.with("brokers.main.management_url", url.as_str());
        let other = broker(&stage.vhost.url, "two", &stage.metrics, change);
        other.connect().await?;
        let inspection = other.inspect(&topology).await?;
        let unseen = inspection.unseen.join("\n");
        assert!(
            unseen.contains(why) && !unseen.contains("hunter2"),
            "{unseen}"
        );
        assert_eq!(inspection.missing.len(), 2, "{:?}", inspection.missing);
        other.disconnect(Instant::now() + LIMIT).await;
    }
    stage.end().await
}

async fn conflict() -> Outcome {
    let stage = Stage::new().await?;
    stage
        .management()
        .declare_queue(
            "billing.a.b",
            json!({
                "x-queue-type": "quorum",
                "x-delivery-limit": 5,
                "x-dead-letter-exchange": "",
                "x-dead-letter-routing-key": "billing.a.b.dlq",
                "x-dead-letter-strategy": "at-least-once",
                "x-overflow": "reject-publish",
            }),
        )
        .await?;
    let differs = Inbox::begin(&stage.broker, subscription("a.b")).await?;
    let mut fits = Inbox::open(&stage.broker, subscription("c.d")).await?;
    differs
        .until(|state| matches!(state, ConsumerState::Failed(_)))
        .await;
    assert_eq!(
        differs.consumer.state(),
        ConsumerState::Failed(
            "broker `main`: queue `billing.a.b`: argument `x-delivery-limit` is `5` on the server, \
             `20` here; change one of them, or delete the queue when it is empty"
                .to_owned()
        )
    );
    stage.broker.publish(message("c.d", "1", "{}")).await?;
    fits.take().await;
    differs.consumer.stop().await;
    stage.end().await
}

async fn verify() -> Outcome {
    let stage = Stage::new().await?;
    let mut wanted = subscription("a.b");
    // Somebody else makes everything first.
    stage
        .broker
        .apply(&stage.broker.topology(&[Arc::new(wanted.clone())]))
        .await?;
    let user = format!("reader-{}", stage.vhost.name);
    stage.management().create_user(&user, "secret").await?;
    stage
        .management()
        .set_permissions(&user, "^$", ".*", ".*")
        .await?;
    wanted.topology = TopologyMode::Verify;
    let reader = broker(
        &stage.vhost.url,
        "two",
        &InMemoryMetrics::default(),
        |config| {
            config
                .with("brokers.main.username", user.as_str())
                .with("brokers.main.password", "secret")
                .with("brokers.main.topology", "verify")
        },
    );
    reader.connect().await?;
    let mut inbox = Inbox::open(&reader, wanted.clone()).await?;
    reader.publish(message("a.b", "1", "{}")).await?;
    inbox.take().await;
    // The same with `apply` says what is missing.
    wanted.topology = TopologyMode::Apply;
    let refused = Inbox::begin(&reader, wanted).await?;
    refused
        .until(|state| matches!(state, ConsumerState::Failed(_)))
        .await;
    let ConsumerState::Failed(text) = refused.consumer.state() else {
        unreachable!("it was failed a moment ago")
    };
    assert!(text.contains("the user may not do this"), "{text}");
    reader.disconnect(Instant::now() + LIMIT).await;
    stage.management().delete_user(&user).await?;
    stage.end().await
}

async fn verify_missing() -> Outcome {
    let stage = Stage::new().await?;
    let mut wanted = subscription("a.b");
    wanted.topology = TopologyMode::Verify;
    let inbox = Inbox::begin(&stage.broker, wanted).await?;
    let text = "broker `main`: queue `billing.a.b.dlq`: queue `billing.a.b.dlq` does not exist";
    inbox
        .until(|state| *state == ConsumerState::Failed(text.to_owned()))
        .await;
    stage.end().await
}

async fn applied() -> Outcome {
    let stage = Stage::new().await?;
    let wanted = [
        Arc::new(subscription("a.b")),
        Arc::new(subscription("a.{x}.c")),
    ];
    let topology = stage.broker.topology(&wanted);
    stage.broker.apply(&topology).await?;
    stage.broker.apply(&topology).await?;
    let mut names: Vec<_> = stage
        .management()
        .queues()
        .await?
        .into_iter()
        .map(|queue| queue.name)
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "billing.a.b",
            "billing.a.b.dlq",
            "billing.a.{x}.c",
            "billing.a.{x}.c.dlq"
        ]
    );
    let bindings = stage.management().bindings("billing.a.{x}.c").await?;
    assert!(
        bindings
            .iter()
            .any(|binding| binding.routing_key == "a.*.c"),
        "{bindings:?}"
    );
    stage.end().await
}

async fn single_active() -> Outcome {
    let stage = Stage::new().await?;
    let mut wanted = subscription("a.b");
    wanted.ordered_by = Some(OrderedBy::Key);
    let mut one = Inbox::open(&stage.broker, wanted.clone()).await?;
    let mut two = Inbox::open(&stage.broker, wanted).await?;
    for index in 0..20 {
        stage
            .broker
            .publish(message("a.b", &index.to_string(), "{}"))
            .await?;
    }
    for index in 0..20 {
        assert_eq!(one.take().await.id.to_string(), index.to_string());
    }
    assert!(two.is_quiet(Duration::from_millis(200)).await);
    one.consumer.stop().await;
    stage.broker.publish(message("a.b", "next", "{}")).await?;
    assert_eq!(two.take().await.id.as_str(), "next");
    stage.end().await
}

async fn by_hand() -> Outcome {
    let stage = Stage::new().await?;
    stage
        .broker
        .declare_exchange("direct", ExchangeKind::Direct)
        .await?;
    let letters = stage.broker.setup_dead_letter_queue("jobs").await?;
    assert_eq!(letters, "jobs.dlq");
    let arguments = [
        ("x-dead-letter-exchange", Argument::Text("")),
        ("x-dead-letter-routing-key", Argument::Text("jobs.dlq")),
    ];
    stage
        .broker
        .declare_queue("jobs", QueueKind::Quorum, &arguments)
        .await?;
    let error = stage
        .broker
        .declare_queue("jobs", QueueKind::Classic, &arguments)
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("argument `x-queue-type` is `quorum` on the server, `classic` here"),
        "{error}"
    );
    let error = stage
        .broker
        .declare_exchange("direct", ExchangeKind::Fanout)
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("argument `type` is `direct` on the server"),
        "{error}"
    );
    let queue = stage.management().queue("jobs").await?;
    assert!(queue.is_some());
    stage.end().await
}

async fn estate() -> Outcome {
    let stage = Stage::new().await?;
    stage
        .management()
        .declare_queue("legacy", json!({ "x-max-length": 100 }))
        .await?;
    stage
        .management()
        .declare_exchange("theirs", "fanout")
        .await?;
    stage
        .management()
        .bind_queue("theirs", "legacy", "")
        .await?;
    let mut wanted = subscription("orders.placed");
    wanted.topology = TopologyMode::Off;
    wanted.dead_letter = false;
    wanted.rabbitmq.queue = Some("legacy".to_owned());
    wanted.rabbitmq.exchange = Some(String::new());
    let mut inbox = Inbox::open(&stage.broker, wanted).await?;
    let mut outgoing = message("orders.placed", "1", "{}");
    outgoing.rabbitmq.exchange = Some("theirs".into());
    outgoing.rabbitmq.routing_key = Some("".into());
    stage.broker.publish(outgoing).await?;
    // A fanout has no routing key; the topic is that of the subscription.
    assert_eq!(&*inbox.take().await.topic, "orders.placed");
    let names: Vec<_> = stage
        .management()
        .queues()
        .await?
        .into_iter()
        .map(|queue| queue.name)
        .collect();
    assert_eq!(names, ["legacy"]);
    stage.end().await
}
