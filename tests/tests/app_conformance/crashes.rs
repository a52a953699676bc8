//! A process that dies, and the one that takes its place.

use std::collections::BTreeSet;
use std::sync::Arc;

use interline::handling::{BoxFuture, PublishError, PublishMiddleware, PublishNext, Receipt};
use interline::message::Outgoing;
use interline::prelude::*;

use crate::probe::Probe;
use crate::work::{Made, Work};
use crate::world::{Outcome as Ending, World, cases};

cases![
    a_repeat_after_a_crash_has_the_same_output_ids,
    what_a_dead_process_had_in_hand_is_handled_by_the_next,
];

#[subscriber(group = "crash")]
async fn make(work: Work, probe: State<Probe>) -> Vec<Made> {
    probe.note(&work.id);
    let all = ["first", "second"];
    all.iter().map(|what| Made::new(&work.id, what)).collect()
}

/// Stops the world after the confirmation of an output: the input is not acknowledged.
struct HoldAfter(&'static str, Probe);

impl PublishMiddleware for HoldAfter {
    fn publish<'a>(
        &'a self,
        outgoing: Outgoing,
        next: PublishNext<'a>,
    ) -> BoxFuture<'a, Result<Receipt, PublishError>> {
        Box::pin(async move {
            let held = String::from_utf8_lossy(&outgoing.body).contains(self.0);
            let receipt = next.run(outgoing).await?;
            if held {
                self.1.note("confirmed");
                std::future::pending::<()>().await;
            }
            Ok(receipt)
        })
    }
}

async fn a_repeat_after_a_crash_has_the_same_output_ids(world: Arc<World>) -> Ending {
    let probe = Probe::new();
    let mut made = world.listen("made").await?;
    let hold = HoldAfter("second", probe.clone());
    let setup = world.app("1").register::<make>().state(probe.clone());
    let process = setup.with(|app| app.publish_middleware(hold)).start().await;
    process.publish(&Work::new("w", "")).await;
    probe.expect("w").await;
    probe.expect("confirmed").await;
    let before = made.take(2).await;
    process.kill();

    let setup = world.app("2").register::<make>().state(probe.clone());
    let process = setup.start().await;
    probe.expect("w").await;
    let again = made.take(2).await;
    for (one, other) in before.iter().zip(&again) {
        assert_eq!(one.header("message-id"), other.header("message-id"));
        assert_eq!(one.body, other.body);
        assert_eq!(one.header("correlation-id"), "w");
        assert_eq!(other.header("correlation-id"), "w");
    }
    assert_ne!(
        before[0].header("message-id"),
        before[1].header("message-id")
    );
    made.quiet().await;
    process.stop().await;
    world.until_left("crash", "work", 0).await;
    Ok(())
}

const WORK: usize = 60;

#[subscriber(group = "die", concurrency = 4)]
async fn die(work: Work, probe: State<Probe>) {
    probe.note(format!("begin {}", work.id));
    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    probe.note(format!("end {}", work.id));
}

async fn what_a_dead_process_had_in_hand_is_handled_by_the_next(world: Arc<World>) -> Ending {
    let probe = Probe::new();
    let setup = world.app("1").register::<die>().state(probe.clone());
    let process = setup.start().await;
    process.running.pause("die").await?;
    for at in 0..WORK {
        process.publish(&Work::new(&at.to_string(), "")).await;
    }
    process.running.resume("die").await?;
    let mut notes = probe.take(30).await;
    process.kill();

    let setup = world.app("2").register::<die>().state(probe.clone());
    let process = setup.start().await;
    let mut ended = BTreeSet::new();
    loop {
        ended.extend(
            notes
                .iter()
                .filter_map(|note| note.strip_prefix("end ").map(str::to_owned)),
        );
        if ended.len() == WORK {
            break;
        }
        notes = vec![probe.next().await];
    }
    process.stop().await;
    world.until_left("die", "work", 0).await;
    world.dead("die", "work", 0).await;
    Ok(())
}
