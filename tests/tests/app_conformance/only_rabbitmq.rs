//! What only RabbitMQ has: its header types, its queues of others, and its management API.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use interline::HeaderValue;
use interline::messaging::ConsumerState;
use interline::observability::metrics::{CONSUMER_RUNNING, InMemoryMetrics};
use interline::prelude::*;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, ByteArray, DecimalValue, FieldArray, FieldTable, LongString};
use serde_json::json;

use crate::bench::RabbitMqBench;
use crate::probe::Probe;
use crate::work::Work;
use crate::world::{LIMIT, Outcome as Ending, World, until};

/// A case that needs the broker itself.
pub(crate) type OnlyFn = fn(Arc<World>, Arc<RabbitMqBench>) -> BoxFuture<'static, Ending>;

pub(crate) const CASES: &[(&str, OnlyFn)] = &[
    (
        "a_queue_of_others_is_read_without_permission_to_configure",
        |world, bench| {
            Box::pin(a_queue_of_others_is_read_without_permission_to_configure(
                world, bench,
            ))
        },
    ),
    (
        "a_queue_that_differs_shows_in_the_gauge_of_running_consumers",
        |world, bench| {
            Box::pin(a_queue_that_differs_shows_in_the_gauge_of_running_consumers(world, bench))
        },
    ),
    ("headers_of_every_type_are_read_and_kept", |world, bench| {
        Box::pin(headers_of_every_type_are_read_and_kept(world, bench))
    }),
    (
        "the_server_sees_the_prefetch_and_what_is_out",
        |world, bench| Box::pin(the_server_sees_the_prefetch_and_what_is_out(world, bench)),
    ),
];

#[subscriber(group = "typed", retry(attempts = 2, first = "1s"))]
async fn typed(_work: Work, headers: Headers, probe: State<Probe>) -> Outcome {
    for (name, value) in headers.iter().filter(|(name, _)| name.starts_with("h-")) {
        probe.note(format!("{name} {value:?}"));
    }
    probe.note("end");
    Outcome::retry("always")
}

async fn headers_of_every_type_are_read_and_kept(
    world: Arc<World>,
    bench: Arc<RabbitMqBench>,
) -> Ending {
    let probe = Probe::new();
    let setup = world.app("1").register::<typed>().state(probe.clone());
    let process = setup.start().await;
    let text = |text: &str| LongString::from(text);
    let mut inner = FieldTable::default();
    inner.insert("inner".into(), AMQPValue::LongString(text("deep")));
    let list = vec![AMQPValue::LongInt(1), AMQPValue::LongString(text("two"))];
    let bytes = |bytes: &[u8]| HeaderValue::Bytes(bytes.to_vec().into());
    let decimal = DecimalValue {
        scale: 2,
        value: 314,
    };
    let given = [
        ("h-bool", AMQPValue::Boolean(true), HeaderValue::Bool(true)),
        ("h-i8", AMQPValue::ShortShortInt(-8), HeaderValue::Int(-8)),
        (
            "h-u8",
            AMQPValue::ShortShortUInt(200),
            HeaderValue::Int(200),
        ),
        ("h-i16", AMQPValue::ShortInt(-16), HeaderValue::Int(-16)),
        (
            "h-u16",
            AMQPValue::ShortUInt(60_000),
            HeaderValue::Int(60_000),
        ),
        ("h-i32", AMQPValue::LongInt(-32), HeaderValue::Int(-32)),
        (
            "h-u32",
            AMQPValue::LongUInt(4_000_000_000),
            HeaderValue::Int(4_000_000_000),
        ),
        (
            "h-i64",
            AMQPValue::LongLongInt(i64::MIN),
            HeaderValue::Int(i64::MIN),
        ),
        ("h-f32", AMQPValue::Float(0.5), HeaderValue::Float(0.5)),
        ("h-f64", AMQPValue::Double(0.1), HeaderValue::Float(0.1)),
        (
            "h-decimal",
            AMQPValue::DecimalValue(decimal),
            HeaderValue::from("3.14"),
        ),
        (
            "h-text",
            AMQPValue::LongString(text("text")),
            HeaderValue::from("text"),
        ),
        (
            "h-not-text",
            AMQPValue::LongString(LongString::from(vec![0xff_u8, 0])),
            bytes(b"\xff\x00"),
        ),
        (
            "h-bytes",
            AMQPValue::ByteArray(ByteArray::from(vec![1_u8, 2])),
            bytes(b"\x01\x02"),
        ),
        (
            "h-time",
            AMQPValue::Timestamp(1_700_000_000),
            HeaderValue::Timestamp(1_700_000_000),
        ),
        (
            "h-list",
            AMQPValue::FieldArray(FieldArray::from(list)),
            HeaderValue::List(vec![HeaderValue::Int(1), HeaderValue::from("two")]),
        ),
        (
            "h-table",
            AMQPValue::FieldTable(inner),
            HeaderValue::Table(vec![("inner".to_owned(), HeaderValue::from("deep"))]),
        ),
        ("h-void", AMQPValue::Void, HeaderValue::Null),
    ];
    let mut table = FieldTable::default();
    let mut expected = BTreeMap::new();
    for (name, value, read) in given {
        table.insert(name.into(), value);
        expected.insert(name.to_owned(), read);
    }
    // What we have names of our own for, in types that make no sense.
    table.insert("x-attempt".into(), AMQPValue::Boolean(true));
    table.insert("message-key".into(), AMQPValue::Void);
    table.insert("message-version".into(), AMQPValue::LongString(text("new")));
    let body = serde_json::to_vec(&Work::new("w", ""))?;
    let properties = BasicProperties::default().with_headers(table);
    bench
        .publish_as(("interline", "work"), &body, properties)
        .await?;
    // At the second time it has been on the broker in between.
    for attempt in 1..=2 {
        let mut notes = probe.take(expected.len() + 1).await;
        assert_eq!(notes.pop().as_deref(), Some("end"));
        notes.sort();
        let wanted: Vec<String> = expected
            .iter()
            .map(|(name, value)| format!("{name} {value:?}"))
            .collect();
        let mut wanted = wanted;
        wanted.sort();
        assert_eq!(notes, wanted, "attempt {attempt}");
    }
    let letter = world.dead("typed", "work", 1).await.remove(0);
    assert_eq!(letter.body, body);
    for (name, value) in &expected {
        assert_eq!(letter.headers.get(name), Some(value), "{name}");
    }
    process.stop().await;
    Ok(())
}

#[subscriber(
    topic = "legacy",
    group = "others",
    on_unknown = dead_letter,
    topology = verify,
    rabbitmq(queue = "of-others", exchange = "")
)]
async fn of_others(words: Vec<String>, meta: Meta, probe: State<Probe>) {
    probe.note(format!("{} {}", meta.topic(), words.join(" ")));
}

async fn a_queue_of_others_is_read_without_permission_to_configure(
    world: Arc<World>,
    bench: Arc<RabbitMqBench>,
) -> Ending {
    let management = &bench.vhost.management;
    // As somebody else once made it: classic, bound to a fanout exchange.
    management
        .declare_exchange("their-exchange", "fanout")
        .await?;
    management
        .declare_queue("of-others", json!({ "x-max-length": 100 }))
        .await?;
    management
        .bind_queue("their-exchange", "of-others", "")
        .await?;
    let user = format!("reader-{}", bench.vhost.name);
    management.create_user(&user, "secret").await?;
    // May write where retries and dead letters would go, and configure nothing.
    management.set_permissions(&user, "^$", ".*", ".*").await?;
    let probe = Probe::new();
    let setup = world.app("1").register::<of_others>().state(probe.clone());
    let setup = setup
        .set("brokers.main.username", user.as_str())
        .set("brokers.main.password", "secret")
        .set("subscribers.of_others.dead_letter", false);
    let process = setup.start().await;
    let before = management.queue("of-others").await?.expect("it is there");
    let to = ("their-exchange", "anything");
    bench
        .publish_as(to, br#"["two","words"]"#, BasicProperties::default())
        .await?;
    probe.expect("anything two words").await;
    process.stop().await;
    let after = management.queue("of-others").await?.expect("it is there");
    assert_eq!(before.arguments, after.arguments);
    let names: Vec<String> = management
        .queues()
        .await?
        .into_iter()
        .map(|queue| queue.name)
        .collect();
    assert_eq!(names, ["of-others"], "nothing was made");
    management.delete_user(&user).await?;
    Ok(())
}

#[subscriber(group = "fine")]
async fn fine(_work: Work) {}

#[subscriber(group = "differs")]
async fn differs(_work: Work) {}

async fn a_queue_that_differs_shows_in_the_gauge_of_running_consumers(
    world: Arc<World>,
    bench: Arc<RabbitMqBench>,
) -> Ending {
    let management = &bench.vhost.management;
    management
        .declare_queue("differs.work", json!({ "x-max-length": 100 }))
        .await?;
    let metrics = InMemoryMetrics::default();
    let sink = Arc::new(metrics.clone());
    let setup = world.app("1").register::<fine>().register::<differs>();
    let process = setup.with(|app| app.metrics(sink)).launch().await;
    let running = |label: &str| metrics.sum(CONSUMER_RUNNING, &[("subscription", label)]);
    until("one runs", || running("fine.work") == 1.0).await;
    let failed = || {
        let subscriptions = process.running.health().subscriptions;
        let of = |label: &str| {
            let mut all = subscriptions.iter();
            all.find(|one| &*one.label == label)
                .map(|one| one.state.clone())
        };
        matches!(of("differs.work"), Some(ConsumerState::Failed(_)))
    };
    until("the other one fails", failed).await;
    assert_eq!(running("differs.work"), 0.0);
    management.delete_queue("differs.work").await?;
    until("it runs too", || running("differs.work") == 1.0).await;
    process.stop().await;
    assert_eq!((running("fine.work"), running("differs.work")), (0.0, 0.0));
    Ok(())
}

#[subscriber(group = "watched", concurrency = 3)]
async fn watched(work: Work, leave: State<tokio::sync::Semaphore>, probe: State<Probe>) {
    probe.note(work.id);
    leave.acquire().await.expect("it stays open").forget();
}

async fn the_server_sees_the_prefetch_and_what_is_out(
    world: Arc<World>,
    bench: Arc<RabbitMqBench>,
) -> Ending {
    let probe = Probe::new();
    let setup = world
        .app("instance-7")
        .register::<watched>()
        .state(probe.clone());
    let process = setup.state(tokio::sync::Semaphore::new(0)).start().await;
    for at in 0..10 {
        process.publish(&Work::new(&at.to_string(), "")).await;
    }
    probe.take(3).await;
    let management = &bench.vhost.management;
    let out = |queue: &interline_tests::management::Queue| {
        (queue.messages_ready, queue.messages_unacknowledged) == (Some(4), Some(6))
    };
    management
        .wait_for_queue("watched.work", out, LIMIT)
        .await?;
    probe.quiet_for(Duration::from_millis(100)).await;
    let consumers = management.consumers("watched.work").await?;
    let [consumer] = &consumers[..] else {
        panic!("one consumer, not {consumers:?}");
    };
    assert_eq!((consumer.prefetch_count, consumer.ack_required), (6, true));
    assert!(consumer.consumer_tag.contains("instance-7"), "{consumer:?}");
    let names = management.connections().await?;
    assert_eq!(names.len(), 3, "two of the app, one of the test: {names:?}");
    process.kill();
    Ok(())
}
