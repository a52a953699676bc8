//! Order by key through everything that interrupts the work: a pause that a handler asks for, a breaker
//! that opens, a pause by hand. One by one and in batches, while others publish.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use interline::prelude::*;
use interline::resilience::CircuitState;
use tokio::time::sleep;

use crate::probe::Probe;
use crate::work::Work;
use crate::world::{Outcome as Ending, Process, Setup, World, cases, until};

cases![
    a_breaker_keeps_the_order_of_each_key,
    a_breaker_keeps_the_order_of_each_key_in_batches,
    a_pause_by_hand_keeps_the_order_of_each_key,
    a_pause_by_hand_keeps_the_order_of_each_key_in_batches,
    a_pause_that_a_handler_asks_for_keeps_the_order_of_each_key,
    a_pause_that_a_handler_asks_for_keeps_the_order_of_each_key_in_batches,
];

const KEYS: usize = 4;
const EACH: usize = 50;
const ALL: usize = KEYS * EACH;
/// What each attempt takes.
const WORK: Duration = Duration::from_millis(2);

/// Whether what the handlers need is away, and how often they found it so.
#[derive(Clone, Default)]
struct Need {
    away: Arc<AtomicBool>,
    refused: Arc<AtomicUsize>,
}

#[derive(Debug, thiserror::Error, Failure)]
enum Trouble {
    #[error("not now")]
    #[fate(pause = "300ms")]
    NotNow,
    #[error("it is away")]
    #[fate(retry)]
    Away,
}

impl Need {
    /// What stands in the way of this work.
    fn check(&self, work: &Work, probe: &Probe) -> Result<(), Trouble> {
        if work.act == "pause" && !probe.seen_before(&work.id) {
            return Err(Trouble::NotNow);
        }
        if self.away.load(Ordering::SeqCst) {
            self.refused.fetch_add(1, Ordering::SeqCst);
            return Err(Trouble::Away);
        }
        Ok(())
    }
}

#[subscriber(group = "unbroken", ordered_by = key, concurrency = 8, retry(attempts = 10_000, first = "20ms", max = "20ms"))]
async fn one_by_one(work: Work, need: State<Need>, probe: State<Probe>) -> Result<(), Trouble> {
    sleep(WORK).await;
    need.check(&work, &probe)?;
    probe.note(&work.id);
    Ok(())
}

#[subscriber(group = "unbroken-batches", ordered_by = key, batch(max = 10, wait = "20ms"), retry(attempts = 10_000, first = "20ms", max = "20ms"))]
async fn in_batches(
    many: Batch<Work>,
    need: State<Need>,
    probe: State<Probe>,
) -> Result<(), Trouble> {
    sleep(WORK).await;
    many.payloads()
        .try_for_each(|work| need.check(work, &probe))?;
    many.payloads().for_each(|work| probe.note(&work.id));
    Ok(())
}

/// Publishes this part of the work of every key, one after the other of each, all keys at once.
async fn publish(
    process: &Process,
    part: std::ops::Range<usize>,
    act: fn(usize, usize) -> &'static str,
) {
    let of_key = |key: usize| {
        let part = part.clone();
        async move {
            for at in part {
                let (of, id) = (format!("k{key}"), format!("{key}/{at}"));
                process.publish(&Work::of(&of, &id, act(key, at))).await;
            }
        }
    };
    join_all((0..KEYS).map(of_key)).await;
}

fn just_do_it(_key: usize, _at: usize) -> &'static str {
    ""
}

/// Takes the rest of what was done: everything once, and each key in its order.
async fn done_in_order(world: &World, process: Process, probe: &Probe, mut done: Vec<String>) {
    let label = process.running.health().subscriptions.remove(0).label;
    let group = label.trim_end_matches(".work");
    done.extend(probe.take(ALL - done.len()).await);
    for key in 0..KEYS {
        let prefix = format!("{key}/");
        let of_key = done.iter().filter_map(|id| id.strip_prefix(&prefix));
        let seen: Vec<usize> = of_key.map(|at| at.parse().expect("a number")).collect();
        assert_eq!(seen, (0..EACH).collect::<Vec<_>>(), "key {key}");
    }
    probe.quiet().await;
    process.stop().await;
    world.until_left(group, "work", 0).await;
    world.dead(group, "work", 0).await;
}

async fn through_pauses(world: Arc<World>, setup: Setup) -> Ending {
    let probe = Probe::new();
    let setup = setup.state(Need::default());
    let process = setup.state(probe.clone()).start().await;
    let act = |key, at| match at % 20 == 7 + key {
        true => "pause",
        false => "",
    };
    publish(&process, 0..EACH, act).await;
    done_in_order(&world, process, &probe, Vec::new()).await;
    Ok(())
}

async fn a_pause_that_a_handler_asks_for_keeps_the_order_of_each_key(world: Arc<World>) -> Ending {
    let setup = world.app("1").register::<one_by_one>();
    through_pauses(world, setup).await
}

async fn a_pause_that_a_handler_asks_for_keeps_the_order_of_each_key_in_batches(
    world: Arc<World>,
) -> Ending {
    let setup = world.app("1").register::<in_batches>();
    through_pauses(world, setup).await
}

async fn through_an_open_breaker(world: Arc<World>, setup: Setup, name: &str) -> Ending {
    let (probe, need) = (Probe::new(), Need::default());
    let option = |option: &str| format!("subscribers.{name}.breaker.{option}");
    let process = setup
        .set(&option("ratio"), 0.5)
        .set(&option("minimum"), 4)
        .set(&option("window"), "30s")
        .set(&option("wait"), "100ms")
        .set(&option("max"), "100ms")
        .state(need.clone())
        .state(probe.clone())
        .start()
        .await;
    let breaker = || process.running.health().subscriptions.remove(0).breaker;
    let trouble = async {
        let done = probe.take(20).await;
        need.away.store(true, Ordering::SeqCst);
        until("it opens", || breaker() == CircuitState::Open).await;
        // What ran beside the last failure, and then one probe after the other.
        let so_far = need.refused.load(Ordering::SeqCst);
        let probed = || need.refused.load(Ordering::SeqCst) > so_far + KEYS + 3;
        until("it probes", probed).await;
        need.away.store(false, Ordering::SeqCst);
        done
    };
    let ((), done) = tokio::join!(publish(&process, 0..EACH, just_do_it), trouble);
    until("it closes", || breaker() == CircuitState::Closed).await;
    done_in_order(&world, process, &probe, done).await;
    Ok(())
}

async fn a_breaker_keeps_the_order_of_each_key(world: Arc<World>) -> Ending {
    let setup = world.app("1").register::<one_by_one>();
    through_an_open_breaker(world, setup, "one_by_one").await
}

async fn a_breaker_keeps_the_order_of_each_key_in_batches(world: Arc<World>) -> Ending {
    let setup = world.app("1").register::<in_batches>();
    through_an_open_breaker(world, setup, "in_batches").await
}

async fn through_a_pause_by_hand(world: Arc<World>, setup: Setup, name: &str) -> Ending {
    let probe = Probe::new();
    let setup = setup.state(Need::default());
    let process = setup.state(probe.clone()).start().await;
    let pause = async {
        let done = probe.take(10).await;
        process.running.pause(name).await.expect("it is known");
        done
    };
    let ((), done) = tokio::join!(publish(&process, 0..EACH / 2, just_do_it), pause);
    publish(&process, EACH / 2..EACH, just_do_it).await;
    process.running.resume(name).await?;
    done_in_order(&world, process, &probe, done).await;
    Ok(())
}

async fn a_pause_by_hand_keeps_the_order_of_each_key(world: Arc<World>) -> Ending {
    let setup = world.app("1").register::<one_by_one>();
    through_a_pause_by_hand(world, setup, "one_by_one").await
}

async fn a_pause_by_hand_keeps_the_order_of_each_key_in_batches(world: Arc<World>) -> Ending {
    let setup = world.app("1").register::<in_batches>();
    through_a_pause_by_hand(world, setup, "in_batches").await
}
