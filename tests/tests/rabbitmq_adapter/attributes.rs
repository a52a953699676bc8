//! From the attribute to the server: what a subscriber says of RabbitMQ is what stands there.

use std::time::Duration;

use interline::messaging::ExchangeKind;
use interline::prelude::*;
use interline_tests::harness::Case;
use interline_tests::servers::{self, Vhost};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::support::{LIMIT, Outcome as Ending};

pub fn cases() -> Vec<Case> {
    vec![Case::new(
        "what_an_attribute_says_of_rabbitmq_is_what_the_server_has",
        declared,
    )]
}

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "orders.placed", subscribers = optional)]
struct Placed {
    id: String,
}

#[subscriber(
    group = "headers",
    rabbitmq(
        exchange = "sorted",
        exchange_kind = headers,
        binding_arguments("x-match" = "all", "region" = "eu", "size" = 7, "express" = true)
    )
)]
async fn by_headers(_: Placed) {}

#[subscriber(group = "direct", rabbitmq(exchange = "jobs", exchange_kind = direct, binding = "job.high"))]
async fn by_key(_: Placed) {}

#[subscriber(group = "fanout", rabbitmq(exchange = "news", exchange_kind = fanout))]
async fn to_all(_: Placed) {}

#[subscriber(group = "topic", rabbitmq(exchange = "parts", binding = "part.#"))]
async fn by_part(_: Placed) {}

#[subscriber(
    group = "classic",
    rabbitmq(queue = "hurried", queue_kind = classic, max_priority = 5, arguments("x-max-length" = 1_000))
)]
async fn by_priority(_: Placed) {}

#[subscriber(group = "other", rabbitmq(queue_kind = classic, max_priority = 5, prefetch = 3))]
async fn by_configuration(_: Placed) {}

async fn declared() -> Ending {
    let vhost = Vhost::create_on(servers::rabbitmq().await?).await?;
    let config = Config::new()
        .with("brokers.main.url", vhost.url.as_str())
        // The configuration has the last word.
        .with("subscribers.by_configuration.rabbitmq.max_priority", 9);
    let app = App::new(config)
        .named_only()
        .register::<by_headers>()
        .register::<by_key>()
        .register::<to_all>()
        .register::<by_part>()
        .register::<by_priority>()
        .register::<by_configuration>();
    let running = app.launch().await?;
    running.ready(LIMIT).await?;
    let management = &vhost.management;
    let exchanges = management.exchanges().await?;
    let kind = |name: &str| {
        let found = exchanges.iter().find(|exchange| exchange.name == name);
        found.map(|exchange| exchange.kind.as_str())
    };
    for (exchange, expected) in [
        ("sorted", ExchangeKind::Headers),
        ("jobs", ExchangeKind::Direct),
        ("news", ExchangeKind::Fanout),
        ("parts", ExchangeKind::Topic),
        ("interline", ExchangeKind::Topic),
    ] {
        let expected = format!("{expected:?}").to_lowercase();
        assert_eq!(kind(exchange), Some(&*expected), "{exchange}");
    }
    let all = json!({ "x-match": "all", "region": "eu", "size": 7, "express": true });
    for (queue, exchange, key, arguments) in [
        ("headers.orders.placed", "sorted", "orders.placed", all),
        ("direct.orders.placed", "jobs", "job.high", json!({})),
        ("fanout.orders.placed", "news", "orders.placed", json!({})),
        ("topic.orders.placed", "parts", "part.#", json!({})),
        ("hurried", "interline", "orders.placed", json!({})),
    ] {
        let mut bindings = management.bindings(queue).await?;
        // Every queue is bound to the default exchange.
        bindings.retain(|binding| !binding.source.is_empty());
        let [binding] = &bindings[..] else {
            panic!("{queue}: {bindings:?}");
        };
        let found = (&*binding.source, &*binding.routing_key);
        assert_eq!(found, (exchange, key), "{queue}");
        assert_eq!(json!(binding.arguments), arguments, "{queue}");
    }
    let arguments = async |queue: &str| {
        let queue = management.queue(queue).await?;
        Ok::<_, crate::support::Error>(queue.ok_or("a queue that is read")?.arguments)
    };
    let hurried = arguments("hurried").await?;
    assert_eq!(hurried["x-max-priority"], 5);
    assert_eq!(hurried["x-max-length"], 1_000);
    assert!(!hurried.contains_key("x-queue-type"), "{hurried:?}");
    let other = arguments("other.orders.placed").await?;
    assert_eq!(other["x-max-priority"], 9);
    // The management API lists a consumer only after a while.
    let deadline = Instant::now() + LIMIT;
    loop {
        let consumers = management.consumers("other.orders.placed").await?;
        let prefetch: Vec<_> = consumers.iter().map(|one| one.prefetch_count).collect();
        if prefetch == [3] {
            break;
        }
        assert!(Instant::now() < deadline, "{prefetch:?}");
        sleep(Duration::from_millis(50)).await;
    }
    running.stop_within(LIMIT).await;
    vhost.delete().await?;
    Ok(())
}
