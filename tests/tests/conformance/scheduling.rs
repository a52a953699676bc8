//! Publishing at a later time: never early, in its own time, held by the broker.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use interline::handling::PublishErrorKind;
use interline::message::Outgoing;
use interline::messaging::{BrokerErrorKind, Scheduling};
use tokio::time::{Instant, timeout};

use crate::world::{LIMIT, Outcome, Process, World, cases, message, subscription, text};

cases![
    a_scheduled_message_can_be_taken_back_where_the_broker_can,
    a_scheduled_message_comes_to_every_group_when_it_is_due,
    a_scheduled_message_outlives_the_process,
    a_short_wait_does_not_wait_behind_a_long_one,
    what_is_held_longer_than_the_broker_can_is_refused,
];

/// What a wait may take on top of its granularity.
const SLACK: Duration = Duration::from_secs(2);

async fn schedule(
    process: &Process,
    outgoing: Outgoing,
    wait: Duration,
) -> Result<(), PublishErrorKind> {
    let due = SystemTime::now() + wait;
    let scheduled = timeout(LIMIT, process.broker.schedule(outgoing, due)).await;
    scheduled.expect("in time").map_err(|error| error.kind())
}

/// How the broker schedules; `None` where it does not, and says so.
async fn scheduling(process: &Process) -> Option<Scheduling> {
    let scheduling = process.broker.capabilities().scheduling;
    if scheduling.is_none() {
        let refused = schedule(process, message("t", "1"), Duration::from_secs(1)).await;
        assert_eq!(refused, Err(PublishErrorKind::Unsupported));
    }
    scheduling
}

fn assert_took(begun: Instant, wait: Duration, scheduling: Scheduling) {
    let took = begun.elapsed();
    // Wall time and monotonic time are read one after the other, and rounded to milliseconds.
    let earliest = wait.saturating_sub(Duration::from_millis(5));
    assert!(
        (earliest..wait + scheduling.granularity + SLACK).contains(&took),
        "{took:?} instead of {wait:?}"
    );
}

async fn a_scheduled_message_comes_to_every_group_when_it_is_due(world: Arc<World>) -> Outcome {
    let process = world.process("1").await;
    let mut one = process.read(&subscription("t", "one")).await;
    let mut two = process.read(&subscription("t", "two")).await;
    let mut elsewhere = process.read(&subscription("u", "one")).await;
    let Some(scheduling) = scheduling(&process).await else {
        return Ok(());
    };
    let mut outgoing = message("t", "1");
    outgoing.key = Some("k".into());
    outgoing.headers.set("x-tenant", "acme");
    let (begun, wait) = (Instant::now(), Duration::from_millis(2_500));
    assert_eq!(schedule(&process, outgoing, wait).await, Ok(()));
    let (incoming, settlement) = one.next().await;
    assert_took(begun, wait, scheduling);
    assert_eq!((text(&incoming).as_str(), &*incoming.topic), ("1", "t"));
    assert_eq!((incoming.attempt, incoming.id.as_str()), (1, "t/1"));
    assert_eq!(incoming.key.as_deref(), Some("k"));
    assert_eq!(incoming.headers.text("x-tenant").as_deref(), Some("acme"));
    settlement.done().await?;
    assert_eq!(two.take().await, "1");
    one.expect_quiet().await;
    two.expect_quiet().await;
    elsewhere.expect_quiet().await;
    Ok(())
}

async fn a_short_wait_does_not_wait_behind_a_long_one(world: Arc<World>) -> Outcome {
    let process = world.process("1").await;
    let mut reader = process.read(&subscription("t", "g")).await;
    let Some(scheduling) = scheduling(&process).await else {
        return Ok(());
    };
    let begun = Instant::now();
    for (body, seconds) in [("6", 6), ("3", 3), ("1", 1), ("2", 2)] {
        let wait = Duration::from_secs(seconds);
        assert_eq!(schedule(&process, message("t", body), wait).await, Ok(()));
    }
    for seconds in [1, 2, 3, 6] {
        assert_eq!(reader.take().await, seconds.to_string());
        assert_took(begun, Duration::from_secs(seconds), scheduling);
    }
    reader.expect_quiet().await;
    Ok(())
}

async fn a_scheduled_message_outlives_the_process(world: Arc<World>) -> Outcome {
    let one = world.process("1").await;
    let wanted = subscription("t", "g");
    one.apply(&wanted).await;
    if scheduling(&one).await.is_none() {
        return Ok(());
    }
    let wait = Duration::from_secs(1);
    assert_eq!(schedule(&one, message("t", "1"), wait).await, Ok(()));
    one.broker.disconnect(Instant::now() + LIMIT).await;
    let two = world.process("2").await;
    let mut reader = two.read(&wanted).await;
    assert_eq!(reader.take().await, "1");
    reader.expect_quiet().await;
    Ok(())
}

async fn a_scheduled_message_can_be_taken_back_where_the_broker_can(world: Arc<World>) -> Outcome {
    let process = world.process("1").await;
    let mut reader = process.read(&subscription("t", "g")).await;
    let Some(scheduling) = scheduling(&process).await else {
        return Ok(());
    };
    for body in ["1", "2"] {
        let wait = Duration::from_secs(1);
        assert_eq!(schedule(&process, message("t", body), wait).await, Ok(()));
    }
    let first = message("t", "1").id;
    if !scheduling.cancel {
        let error = process.broker.unschedule(&first).await;
        let error = error.expect_err("it cannot");
        assert_eq!(error.kind(), BrokerErrorKind::Unsupported);
        return Ok(());
    }
    assert!(process.broker.unschedule(&first).await?);
    assert!(!process.broker.unschedule(&first).await?);
    assert_eq!(reader.take().await, "2");
    reader.expect_quiet().await;
    let second = message("t", "2").id;
    assert!(
        !process.broker.unschedule(&second).await?,
        "it was published"
    );
    Ok(())
}

async fn what_is_held_longer_than_the_broker_can_is_refused(world: Arc<World>) -> Outcome {
    let process = world.process("1").await;
    let _reader = process.read(&subscription("t", "g")).await;
    let Some(scheduling) = scheduling(&process).await else {
        return Ok(());
    };
    let wait = scheduling.longest + 2 * scheduling.granularity + Duration::from_secs(60);
    let refused = schedule(&process, message("t", "1"), wait).await;
    assert_eq!(refused, Err(PublishErrorKind::Unsupported));
    Ok(())
}
