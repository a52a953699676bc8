//! Messages that are acknowledged before they are handled: once or never.

use std::sync::Arc;
use std::time::Duration;

use interline::prelude::*;

use crate::probe::Probe;
use crate::work::Work;
use crate::world::{Outcome as Ending, Setup, World, cases};

cases![
    at_most_once_makes_one_attempt_and_keeps_nothing,
    what_was_acknowledged_on_receipt_does_not_come_again,
    what_was_acknowledged_on_receipt_does_not_come_again_in_batches,
    what_was_acknowledged_on_receipt_is_tried_again_in_the_process,
];

type AnyError = Box<dyn std::error::Error + Send + Sync>;

#[subscriber(group = "once", delivery = at_most_once)]
async fn once(work: Work, meta: Meta, probe: State<Probe>) -> Result<(), AnyError> {
    probe.note(format!("{} #{}", work.id, meta.attempt()));
    Err("always".into())
}

async fn at_most_once_makes_one_attempt_and_keeps_nothing(world: Arc<World>) -> Ending {
    let probe = Probe::new();
    let setup = world.app("1").register::<once>().state(probe.clone());
    let process = setup.start().await;
    for id in ["a", "b"] {
        process.publish(&Work::new(id, "")).await;
    }
    assert_eq!(probe.take_sorted(2).await, ["a #1", "b #1"]);
    probe.quiet().await;
    process.stop().await;
    world.until_left("once", "work", 0).await;
    Ok(())
}

#[subscriber(group = "received", ack = on_receive)]
async fn singly(work: Work, probe: State<Probe>) {
    probe.note(&work.id);
    std::future::pending::<()>().await;
}

#[subscriber(group = "received-batches", ack = on_receive, batch(max = 2, wait = "5s"))]
async fn together(many: Batch<Work>, probe: State<Probe>) {
    many.payloads().for_each(|work| probe.note(&work.id));
    std::future::pending::<()>().await;
}

/// The handlers never end, so the process ends them at its deadline.
async fn not_again(world: Arc<World>, group: &str, setup: fn(&World, &str) -> Setup) -> Ending {
    let probe = Probe::new();
    let process = setup(&world, "1").state(probe.clone()).start().await;
    for id in ["a", "b"] {
        process.publish(&Work::new(id, "")).await;
    }
    assert_eq!(probe.take_sorted(2).await, ["a", "b"]);
    process.running.stop_within(Duration::from_secs(2)).await;
    drop(process);
    world.until_left(group, "work", 0).await;
    let process = setup(&world, "2").state(probe.clone()).start().await;
    probe.quiet().await;
    process.stop().await;
    world.until_left(group, "work", 0).await;
    world.dead(group, "work", 0).await;
    Ok(())
}

async fn what_was_acknowledged_on_receipt_does_not_come_again(world: Arc<World>) -> Ending {
    not_again(world, "received", |world, instance| {
        world.app(instance).register::<singly>()
    })
    .await
}

async fn what_was_acknowledged_on_receipt_does_not_come_again_in_batches(
    world: Arc<World>,
) -> Ending {
    not_again(world, "received-batches", |world, instance| {
        world.app(instance).register::<together>()
    })
    .await
}

#[subscriber(group = "tried", ack = on_receive, retry(attempts = 3, first = "20ms"))]
async fn tried(work: Work, meta: Meta, probe: State<Probe>) -> Result<(), AnyError> {
    let attempt = format!("{} #{}", work.id, meta.attempt());
    probe.note(&attempt);
    match attempt.as_str() {
        "mends #3" => Ok(()),
        _ => Err("not yet".into()),
    }
}

async fn what_was_acknowledged_on_receipt_is_tried_again_in_the_process(
    world: Arc<World>,
) -> Ending {
    let probe = Probe::new();
    let setup = world.app("1").register::<tried>().state(probe.clone());
    let process = setup.start().await;
    for id in ["mends", "never"] {
        process.publish(&Work::new(id, "")).await;
        for attempt in 1..=3 {
            probe.expect(&format!("{id} #{attempt}")).await;
            // The broker has it no more, while it is tried here.
            world.until_left("tried", "work", 0).await;
        }
    }
    probe.quiet().await;
    process.stop().await;
    world.dead("tried", "work", 0).await;
    Ok(())
}
