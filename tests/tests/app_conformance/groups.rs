//! Who gets what, how many at once, and how fast.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use interline::prelude::*;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::probe::Probe;
use crate::work::Work;
use crate::world::{Outcome as Ending, World, cases};

cases![
    a_group_shares_and_each_group_gets_everything,
    a_rate_is_kept,
    each_instance_gets_everything_that_comes_while_it_runs,
    no_more_are_fetched_than_twice_what_runs,
    nothing_stays_in_the_hands_of_the_dead,
    so_many_run_at_once_and_no_more,
];

/// The process in which a handler runs.
struct Who(&'static str);

#[subscriber(group = "shared", concurrency = 1)]
async fn shared(work: Work, who: State<Who>, probe: State<Probe>) {
    probe.note(format!("shared {} {}", who.0, work.id));
    // So that one does not do it all before the other has begun.
    tokio::time::sleep(Duration::from_millis(20)).await;
}

#[subscriber(group = "alone")]
async fn alone(work: Work, who: State<Who>, probe: State<Probe>) {
    probe.note(format!("alone {} {}", who.0, work.id));
}

async fn a_group_shares_and_each_group_gets_everything(world: Arc<World>) -> Ending {
    const ROUND: usize = 60;
    let probe = Probe::new();
    let app = |name| {
        let setup = world.app(name).register::<shared>().state(Who(name));
        if world.deals_out_partitions() {
            setup.set("brokers.main.partitions", 4)
        } else {
            setup
        }
    };
    let setup = app("1").register::<alone>();
    let one = setup.state(probe.clone()).start().await;
    let setup = app("2");
    let two = setup.state(probe.clone()).start().await;
    let (mut all, mut notes) = (0, Vec::new());
    let of = |notes: &[String], prefix: &str| -> Vec<String> {
        let found = notes.iter().filter_map(|note| note.strip_prefix(prefix));
        found.map(str::to_owned).collect()
    };
    // Where partitions are dealt out, the second process has none before it has joined.
    while of(&notes, "shared 1 ").is_empty() || of(&notes, "shared 2 ").is_empty() {
        assert!(all < 20 * ROUND, "one did it all");
        for at in all..all + ROUND {
            one.publish(&Work::new(&at.to_string(), "")).await;
        }
        all += ROUND;
        notes.extend(probe.take(2 * ROUND).await);
    }
    probe.quiet().await;
    let expected: BTreeSet<String> = (0..all).map(|at| at.to_string()).collect();
    let mut together = of(&notes, "shared 1 ");
    together.extend(of(&notes, "shared 2 "));
    assert_eq!(together.len(), all);
    assert_eq!(together.into_iter().collect::<BTreeSet<_>>(), expected);
    assert_eq!(
        of(&notes, "alone 1 ").into_iter().collect::<BTreeSet<_>>(),
        expected
    );
    one.stop().await;
    two.stop().await;
    for group in ["shared", "alone"] {
        world.until_left(group, "work", 0).await;
    }
    Ok(())
}

#[subscriber(group = each_instance)]
async fn each(work: Work, who: State<Who>, probe: State<Probe>) {
    probe.note(format!("{} {}", who.0, work.id));
}

async fn each_instance_gets_everything_that_comes_while_it_runs(world: Arc<World>) -> Ending {
    let probe = Probe::new();
    let app = |name| {
        let setup = world.app(name).register::<each>().state(Who(name));
        setup.state(probe.clone()).start()
    };
    let one = app("1").await;
    one.publish(&Work::new("early", "")).await;
    probe.expect("1 early").await;
    let two = app("2").await;
    for id in ["a", "b"] {
        one.publish(&Work::new(id, "")).await;
    }
    assert_eq!(probe.take_sorted(4).await, ["1 a", "1 b", "2 a", "2 b"]);
    one.stop().await;
    two.publish(&Work::new("late", "")).await;
    probe.expect("2 late").await;
    probe.quiet().await;
    two.stop().await;
    Ok(())
}

#[derive(Default)]
struct Busy {
    now: AtomicUsize,
    most: AtomicUsize,
}

#[subscriber(group = "busy", concurrency = 3)]
async fn busy(work: Work, busy: State<Busy>, probe: State<Probe>) {
    let now = busy.now.fetch_add(1, Ordering::SeqCst) + 1;
    busy.most.fetch_max(now, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(50)).await;
    busy.now.fetch_sub(1, Ordering::SeqCst);
    probe.note(format!("{} {}", work.id, busy.most.load(Ordering::SeqCst)));
}

async fn so_many_run_at_once_and_no_more(world: Arc<World>) -> Ending {
    let probe = Probe::new();
    for (instance, concurrency) in [("1", 3), ("2", 5)] {
        let setup = world
            .app(instance)
            .register::<busy>()
            .state(Busy::default());
        let setup = setup.set("subscribers.busy.concurrency", concurrency);
        let process = setup.state(probe.clone()).start().await;
        for at in 0..25 {
            process.publish(&Work::new(&at.to_string(), "")).await;
        }
        let notes = probe.take(25).await;
        let most = notes.last().and_then(|note| note.rsplit_once(' '));
        assert_eq!(most.map(|(_, most)| most), Some(&*concurrency.to_string()));
        process.stop().await;
    }
    Ok(())
}

#[subscriber(group = "blocked", concurrency = 4)]
async fn blocked(work: Work, leave: State<Semaphore>, probe: State<Probe>) {
    probe.note(format!("begin {}", work.id));
    leave.acquire().await.expect("it stays open").forget();
}

#[subscriber(group = "blocked-by-five", concurrency = 4)]
async fn blocked_by_five(work: Work, leave: State<Semaphore>, probe: State<Probe>) {
    probe.note(format!("begin {}", work.id));
    leave.acquire().await.expect("it stays open").forget();
}

async fn no_more_are_fetched_than_twice_what_runs(world: Arc<World>) -> Ending {
    let probe = Probe::new();
    let setup = world.app("1").register::<blocked>();
    let setup = setup.register::<blocked_by_five>().state(Semaphore::new(0));
    let setup = setup.set("subscribers.blocked_by_five.prefetch", 5);
    let process = setup.state(probe.clone()).start().await;
    for at in 0..20 {
        process.publish(&Work::new(&at.to_string(), "")).await;
    }
    probe.take(8).await;
    world.until_left("blocked", "work", 12).await;
    world.until_left("blocked-by-five", "work", 15).await;
    probe.quiet().await;
    world.until_left("blocked", "work", 12).await;
    world.until_left("blocked-by-five", "work", 15).await;
    process.kill();
    Ok(())
}

async fn nothing_stays_in_the_hands_of_the_dead(world: Arc<World>) -> Ending {
    let probe = Probe::new();
    let setup = world.app("1").register::<blocked>();
    let setup = setup.state(Semaphore::new(0)).state(probe.clone());
    let process = setup.start().await;
    for at in 0..20 {
        process.publish(&Work::new(&at.to_string(), "")).await;
    }
    probe.take(4).await;
    process.kill();
    world.until_left("blocked", "work", 20).await;
    Ok(())
}

#[subscriber(group = "rated", rate = "5/500ms")]
async fn rated(work: Work, probe: State<Probe>) {
    probe.note(work.id);
}

async fn a_rate_is_kept(world: Arc<World>) -> Ending {
    let probe = Probe::new();
    let setup = world.app("1").register::<rated>().state(probe.clone());
    let process = setup.start().await;
    let begun = Instant::now();
    for at in 0..20 {
        process.publish(&Work::new(&at.to_string(), "")).await;
    }
    probe.take(20).await;
    // Five at once, the other fifteen at ten in a second.
    let took = begun.elapsed();
    let expected = Duration::from_millis(1_400)..Duration::from_secs(4);
    assert!(expected.contains(&took), "{took:?}");
    process.stop().await;
    Ok(())
}
