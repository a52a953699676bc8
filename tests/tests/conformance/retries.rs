//! Retries: they wait on the broker, each its own time, for its own subscription.

use std::sync::Arc;
use std::time::Duration;

use interline::message::headers::name;
use interline::messaging::Settled;
use tokio::time::Instant;

use crate::world::{LIMIT, Outcome, World, cases, message, subscription, text};

cases![
    a_retry_comes_back_after_its_time_to_its_own_subscription,
    a_retry_outlives_the_process,
    a_short_retry_does_not_wait_behind_a_long_one,
];

/// What a wait may take on top.
const SLACK: Duration = Duration::from_secs(2);

async fn a_retry_comes_back_after_its_time_to_its_own_subscription(world: Arc<World>) -> Outcome {
    let process = world.process("1").await;
    let mut reader = process.read(&subscription("t", "g")).await;
    let mut other = process.read(&subscription("t", "other")).await;
    let mut outgoing = message("t", "1");
    outgoing.key = Some("k".into());
    outgoing.headers.set("x-tenant", "acme");
    process.publish(outgoing).await;
    assert_eq!(other.take().await, "1");
    for attempt in 2..4_u32 {
        let (incoming, settlement) = reader.next().await;
        let mut headers = incoming.headers.clone();
        headers.set(name::ATTEMPT, attempt);
        headers.set(name::FIRST_FAILURE, "2026-01-02T03:04:05.000Z");
        let begun = Instant::now();
        let after = Duration::from_secs(1);
        let settled = settlement.retry(incoming, after, headers).await?;
        assert_eq!(settled, Settled::Yes);
        let (again, settlement) = reader.next().await;
        let took = begun.elapsed();
        assert!((after..after + SLACK).contains(&took), "{took:?}");
        assert_eq!((text(&again).as_str(), &*again.topic), ("1", "t"));
        assert_eq!((again.attempt, again.redelivered), (attempt, false));
        assert_eq!(
            (again.id.as_str(), again.key.as_deref()),
            ("t/1", Some("k"))
        );
        assert_eq!(again.headers.text("x-tenant").as_deref(), Some("acme"));
        assert!(again.first_failure().is_some());
        if attempt == 2 {
            settlement.release().await?;
        } else {
            settlement.done().await?;
        }
    }
    other.expect_quiet().await;
    reader.expect_quiet().await;
    Ok(())
}

async fn a_short_retry_does_not_wait_behind_a_long_one(world: Arc<World>) -> Outcome {
    let process = world.process("1").await;
    let mut reader = process.read(&subscription("t", "g")).await;
    let begun = Instant::now();
    for (body, seconds) in [("long", 5), ("short", 1)] {
        process.publish(message("t", body)).await;
        let (incoming, settlement) = reader.next().await;
        let headers = incoming.headers.clone();
        let after = Duration::from_secs(seconds);
        settlement.retry(incoming, after, headers).await?;
    }
    assert_eq!(reader.take().await, "short");
    let short = begun.elapsed();
    assert!(
        (Duration::from_secs(1)..Duration::from_secs(1) + SLACK).contains(&short),
        "{short:?}"
    );
    assert_eq!(reader.take().await, "long");
    let long = begun.elapsed();
    assert!(
        (Duration::from_secs(5)..Duration::from_secs(5) + SLACK).contains(&long),
        "{long:?}"
    );
    Ok(())
}

async fn a_retry_outlives_the_process(world: Arc<World>) -> Outcome {
    let wanted = subscription("t", "g");
    let one = world.process("1").await;
    let mut reader = one.read(&wanted).await;
    one.publish(message("t", "1")).await;
    let (incoming, settlement) = reader.next().await;
    let headers = incoming.headers.clone();
    settlement
        .retry(incoming, Duration::from_secs(1), headers)
        .await?;
    one.broker.disconnect(Instant::now() + LIMIT).await;
    let two = world.process("2").await;
    let mut reader = two.read(&wanted).await;
    assert_eq!(reader.take().await, "1");
    reader.expect_quiet().await;
    Ok(())
}
