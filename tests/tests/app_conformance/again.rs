//! What an operator has handled once more: dead letters that are sent back, positions that are moved.

use std::sync::Arc;

use interline::App;
use interline::messaging::{BrokerErrorKind, Position, Redrive};
use interline::prelude::*;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::probe::Probe;
use crate::work::Work;
use crate::world::{LIMIT, Outcome as Ending, World, cases};

cases![
    a_handler_reads_again_from_a_position,
    what_was_given_up_without_a_retry_is_sent_back,
];

#[subscriber(group = "reader")]
async fn read(work: Work, probe: State<Probe>) {
    probe.note(&work.id);
}

async fn a_handler_reads_again_from_a_position(world: Arc<World>) -> Ending {
    let probe = Probe::new();
    let start = || world.app("1").register::<read>().state(probe.clone());
    let process = start().start().await;
    for id in ["a", "b"] {
        process.publish(&Work::new(id, "")).await;
        probe.expect(id).await;
    }
    let all = process.running.manager().positions("read")?;
    let positions = &all[0];
    let (send, mut messages) = mpsc::channel(16);
    let window = (Position::Earliest, Position::Latest);
    assert_eq!(positions.replay(window, send).await?, 2);
    let mut replayed = Vec::new();
    while let Some(message) = messages.recv().await {
        replayed.push(message.id.to_string());
    }
    assert_eq!(replayed, ["a", "b"]);
    probe.quiet().await;

    let refused = positions.reset(Position::Earliest).await;
    let refused = refused.expect_err("it is being read");
    assert_eq!(refused.kind(), BrokerErrorKind::Refused, "{refused}");
    assert_eq!(positions.seek(Position::Earliest).await?, 1);
    assert_eq!(probe.take(2).await, ["a", "b"]);
    process.stop().await;

    // Whoever looks after it need not be able to run it.
    let operator = world.app("operator").set("service.name", "operator");
    let operator = operator.with(App::publish_only).start().await;
    let positions = operator.running.manager().positions_of("reader", "work")?;
    positions.reset(Position::Earliest).await?;
    operator.stop().await;
    let process = start().start().await;
    assert_eq!(probe.take(2).await, ["a", "b"]);
    probe.quiet().await;
    process.stop().await;
    Ok(())
}

type AnyError = Box<dyn std::error::Error + Send + Sync>;

#[subscriber(group = "mended", retry = none, kafka(retry = in_lane))]
async fn mended(work: Work, meta: Meta, probe: State<Probe>) -> Result<(), AnyError> {
    probe.note(format!("{} #{}", work.id, meta.attempt()));
    match probe.seen_before(&work.id) {
        true => Ok(()),
        false => Err("the first time fails".into()),
    }
}

async fn what_was_given_up_without_a_retry_is_sent_back(world: Arc<World>) -> Ending {
    let probe = Probe::new();
    let setup = world.app("1").register::<mended>().state(probe.clone());
    let process = setup.start().await;
    for id in ["a", "b"] {
        process.publish(&Work::new(id, "")).await;
    }
    assert_eq!(probe.take_sorted(2).await, ["a #1", "b #1"]);
    let all = process.running.manager().dead_letters("mended")?;
    let letters = &all[0];
    // The last one may still be on its way there.
    let mut moved = 0;
    let begun = Instant::now();
    while moved < 2 {
        moved += letters.redrive(&Redrive::new()).await?;
        assert!(begun.elapsed() < LIMIT, "only {moved} moved");
    }
    assert_eq!((moved, letters.list(10).await?.len()), (2, 0));
    assert_eq!(probe.take_sorted(2).await, ["a #1", "b #1"]);
    probe.quiet().await;
    process.stop().await;
    world.dead("mended", "work", 0).await;
    Ok(())
}
