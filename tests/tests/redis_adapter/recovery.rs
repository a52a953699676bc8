//! What instances leave behind, and what they keep.

use std::collections::BTreeSet;
use std::time::Duration;

use interline::Config;
use interline::message::headers::name;
use interline::messaging::{MessageBroker, Settled};
use interline::observability::metrics::DEAD_LETTERED;
use tokio::time::{Instant, sleep};

use crate::cases;
use crate::support::{
    Inbox, LIMIT, Outcome, Stage, apply, eventually, message, numbers, publish, subscription,
};

cases![
    what_is_released_under_sweeps_is_never_stranded,
    a_consumer_goes_only_when_it_holds_nothing,
    a_slow_handler_keeps_its_message,
    instances_that_come_and_go_leave_nothing_behind,
    what_a_dead_instance_held_is_finished_by_others,
    what_kills_its_consumers_is_a_dead_letter,
];

fn quick(config: Config) -> Config {
    config.with("brokers.main.claim_after", "1s")
}

async fn what_a_dead_instance_held_is_finished_by_others() -> Outcome {
    let stage = Stage::with(quick).await?;
    let wanted = subscription("t");
    apply(&stage.broker, &wanted).await?;
    publish(&stage.broker, numbers(0..100)).await?;
    // An instance that died with a hundred in its hands.
    let read = [
        "XREADGROUP",
        "GROUP",
        "billing",
        "dead",
        "COUNT",
        "100",
        "STREAMS",
        "t",
        ">",
    ];
    stage.database.command(&read).await?;
    let two = stage.another("two", quick).await?;
    let mut one = Inbox::open(&stage.broker, wanted.clone()).await?;
    let mut other = Inbox::open(&two, wanted).await?;
    let mut came = BTreeSet::new();
    let begun = Instant::now();
    while came.len() < 100 {
        assert!(begun.elapsed() < LIMIT, "only {} came", came.len());
        let inbox = if other.deliveries.is_empty() {
            &mut one
        } else {
            &mut other
        };
        if inbox.deliveries.is_empty() {
            sleep(Duration::from_millis(5)).await;
            continue;
        }
        let (incoming, settlement) = inbox.next().await;
        assert!(incoming.redelivered);
        assert_eq!(settlement.done().await?, Settled::Yes);
        assert!(
            came.insert(incoming.id.to_string()),
            "{} twice",
            incoming.id
        );
    }
    two.disconnect(Instant::now() + LIMIT).await;
    stage.end().await
}

/// Sweeps of two instances race with releases.
async fn what_is_released_under_sweeps_is_never_stranded() -> Outcome {
    let stage = Stage::new().await?;
    let two = stage.another("two", |config| config).await?;
    let wanted = subscription("t");
    let mut one = Inbox::open(&stage.broker, wanted.clone()).await?;
    let mut other = Inbox::open(&two, wanted).await?;
    publish(&stage.broker, numbers(0..20)).await?;
    let mut released = std::collections::BTreeMap::new();
    let mut done = BTreeSet::new();
    let begun = Instant::now();
    // Well below the time after which an entry that nobody knows of is taken for abandoned.
    while done.len() < 20 {
        assert!(begun.elapsed() < Duration::from_secs(20), "{released:?}");
        let next = tokio::select! {
            next = one.next() => next,
            next = other.next() => next,
        };
        let (incoming, settlement) = next;
        let times = released.entry(incoming.id.to_string()).or_insert(0);
        if *times < 50 {
            *times += 1;
            assert_eq!(settlement.release().await?, Settled::Yes);
        } else {
            assert_eq!(settlement.done().await?, Settled::Yes);
            done.insert(incoming.id.to_string());
        }
    }
    two.disconnect(Instant::now() + LIMIT).await;
    stage.end().await
}

async fn a_slow_handler_keeps_its_message() -> Outcome {
    let stage = Stage::with(quick).await?;
    let two = stage.another("two", quick).await?;
    let mut wanted = subscription("t");
    wanted.prefetch = 2;
    let mut one = Inbox::open(&stage.broker, wanted.clone()).await?;
    stage.broker.publish(message("t", "1")).await?;
    let (_, settlement) = one.next().await;
    let mut other = Inbox::open(&two, wanted).await?;
    // Five times as long as it takes until others take what is silent.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(5) {
        one.expect_quiet().await;
        other.expect_quiet().await;
    }
    assert_eq!(settlement.done().await?, Settled::Yes);
    two.disconnect(Instant::now() + LIMIT).await;
    stage.end().await
}

async fn what_kills_its_consumers_is_a_dead_letter() -> Outcome {
    let limited = |config: Config| quick(config).with("brokers.main.delivery_limit", 3);
    let stage = Stage::with(limited).await?;
    let wanted = subscription("t");
    apply(&stage.broker, &wanted).await?;
    stage.broker.publish(message("t", "poison")).await?;
    let read = [
        "XREADGROUP",
        "GROUP",
        "billing",
        "dead",
        "STREAMS",
        "t",
        ">",
    ];
    stage.database.command(&read).await?;
    let pending = stage
        .database
        .command(&["XPENDING", "t", "billing"])
        .await?;
    let (_, id, _, _): (i64, String, String, redis::Value) = redis::from_redis_value(pending)?;
    // It was handed out three times, and whoever had it died each time.
    let claim = [
        "XCLAIM",
        "t",
        "billing",
        "dead",
        "0",
        &id,
        "RETRYCOUNT",
        "3",
    ];
    stage.database.command(&claim).await?;
    let mut inbox = Inbox::open(&stage.broker, wanted.clone()).await?;
    let store = stage.broker.dead_letters().expect("they are kept");
    let listed = async || store.list(&wanted, 10).await.expect("they can be listed");
    eventually(
        async || !listed().await.is_empty(),
        || "it is no dead letter".to_owned(),
    )
    .await;
    let letter = &listed().await[0];
    assert_eq!(letter.id.as_str(), "t/poison");
    let reason = letter.headers.text(name::DLQ_REASON);
    assert_eq!(reason.as_deref(), Some("delivery_limit"));
    inbox.expect_quiet().await;
    let labels = [("reason", "delivery_limit")];
    assert_eq!(stage.metrics.sum(DEAD_LETTERED, &labels), 1.0);
    stage.end().await
}

async fn a_consumer_goes_only_when_it_holds_nothing() -> Outcome {
    let stage = Stage::with(quick).await?;
    let mut wanted = subscription("t");
    wanted.prefetch = 1;
    apply(&stage.broker, &wanted).await?;
    publish(&stage.broker, numbers(0..2)).await?;
    let read = [
        "XREADGROUP",
        "GROUP",
        "billing",
        "dead",
        "STREAMS",
        "t",
        ">",
    ];
    stage.database.command(&read).await?;
    stage
        .database
        .command(&["XGROUP", "CREATECONSUMER", "t", "billing", "vain"])
        .await?;
    let consumers = async || {
        let found = stage
            .database
            .command(&["XINFO", "CONSUMERS", "t", "billing"])
            .await;
        format!("{:?}", found.expect("they are listed"))
    };
    let mut inbox = Inbox::open(&stage.broker, wanted).await?;
    let (_, first) = inbox.next().await;
    eventually(
        async || !consumers().await.contains("vain"),
        || "the idle one is still there".to_owned(),
    )
    .await;
    // With room for one, the second message is still the dead one's.
    assert!(consumers().await.contains("dead"), "{}", consumers().await);
    first.done().await?;
    inbox.take().await;
    eventually(
        async || !consumers().await.contains("dead"),
        || "the dead one is still there".to_owned(),
    )
    .await;
    inbox.expect_quiet().await;
    stage.end().await
}

async fn instances_that_come_and_go_leave_nothing_behind() -> Outcome {
    let stage = Stage::new().await?;
    let wanted = subscription("t");
    apply(&stage.broker, &wanted).await?;
    publish(&stage.broker, numbers(0..100)).await?;
    let mut came = BTreeSet::new();
    for round in 0..10 {
        let instance = stage.another(&format!("i{round}"), |config| config).await?;
        let mut inbox = Inbox::open(&instance, wanted.clone()).await?;
        for _ in 0..10 {
            let (incoming, settlement) = inbox.next().await;
            assert_eq!(settlement.done().await?, Settled::Yes);
            assert!(
                came.insert(incoming.id.to_string()),
                "{} twice",
                incoming.id
            );
        }
        // It goes with what it had fetched and not begun.
        instance.disconnect(Instant::now() + LIMIT).await;
    }
    assert_eq!(came.len(), 100);
    let found = stage
        .database
        .command(&["XINFO", "CONSUMERS", "t", "billing"])
        .await?;
    assert!(!format!("{found:?}").contains("billing-i"), "{found:?}");
    stage.end().await
}
