//! Order by key: within a process, across processes, and with something that fails in the middle.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use interline::prelude::*;

use crate::probe::Probe;
use crate::work::Work;
use crate::world::{Outcome as Ending, Process, World, cases};

cases![
    a_failing_message_holds_up_its_own_key_only,
    keys_are_spread_over_lanes,
    order_within_a_process_is_kept_too,
    the_order_of_each_key_outlives_a_crash,
    two_processes_take_turns_in_the_order_of_each_key,
    what_waits_in_a_lane_when_the_process_drains_keeps_its_place,
];

#[subscriber(group = "ordered", ordered_by = key, concurrency = 8, retry(attempts = 4, first = "300ms", factor = 1.0))]
async fn ordered(work: Work, meta: Meta, who: State<Who>, probe: State<Probe>) -> Outcome {
    let (id, attempt) = (&work.id, meta.attempt());
    probe.note(format!("{} begin {id} #{attempt}", who.0));
    tokio::time::sleep(Duration::from_millis(5)).await;
    if work.act == "fail" && attempt < 3 {
        return Outcome::retry("not yet");
    }
    if work.act == "late" && attempt == 1 {
        // Longer than what other messages wait for in the process.
        return Outcome::retry_after(Duration::from_secs(2), "late");
    }
    probe.note(format!("{} end {id}", who.0));
    Outcome::done()
}

/// The process in which a handler runs.
struct Who(&'static str);

#[subscriber(group = "in-process", ordered_by = key_in_process, concurrency = 8, retry(attempts = 4, first = "300ms", factor = 1.0))]
async fn in_process(work: Work, meta: Meta, who: State<Who>, probe: State<Probe>) -> Outcome {
    probe.note(format!("{} begin {} #{}", who.0, work.id, meta.attempt()));
    if work.act == "fail" && meta.attempt() < 3 {
        return Outcome::retry("not yet");
    }
    probe.note(format!("{} end {}", who.0, work.id));
    Outcome::done()
}

/// A key that has a lane of its own beside that of `a`, for any number of lanes above one it is
/// likely; with 8 lanes these are all different.
const OTHERS: [&str; 6] = ["b", "c", "d", "e", "f", "g"];

async fn a_failing_message_holds_up_its_own_key_only(world: Arc<World>) -> Ending {
    let probe = Probe::new();
    let setup = world.app("1").register::<ordered>();
    let process = setup.state(Who("1")).state(probe.clone()).start().await;
    process.running.pause("ordered").await?;
    for (id, act) in [
        ("a1", ""),
        ("a2", "fail"),
        ("a3", ""),
        ("a4", "late"),
        ("a5", ""),
    ] {
        process.publish(&Work::of("a", id, act)).await;
    }
    for key in OTHERS {
        process.publish(&Work::of(key, key, "")).await;
    }
    process.running.resume("ordered").await?;
    let count = 2 * (3 + OTHERS.len()) + 4 + 3;
    let notes = probe.take(count).await;
    let of_a: Vec<&str> = notes
        .iter()
        .filter_map(|note| note.strip_prefix("1 "))
        .filter(|note| note.contains(" a"))
        .collect();
    assert_eq!(
        of_a,
        [
            "begin a1 #1",
            "end a1",
            "begin a2 #1",
            "begin a2 #2",
            "begin a2 #3",
            "end a2",
            "begin a3 #1",
            "end a3",
            "begin a4 #1",
            "begin a4 #2",
            "end a4",
            "begin a5 #1",
            "end a5",
        ]
    );
    // At least one key has another lane, and did not wait.
    let at = |wanted: &str| notes.iter().position(|note| note == wanted).expect(wanted);
    let held = at("1 end a2");
    let passed = OTHERS
        .iter()
        .filter(|key| at(&format!("1 end {key}")) < held);
    assert!(passed.count() >= 3, "{notes:#?}");
    probe.quiet().await;
    process.stop().await;
    world.until_left("ordered", "work", 0).await;
    world.dead("ordered", "work", 0).await;
    Ok(())
}

async fn order_within_a_process_is_kept_too(world: Arc<World>) -> Ending {
    let probe = Probe::new();
    let setup = world.app("1").register::<in_process>();
    let process = setup.state(Who("1")).state(probe.clone()).start().await;
    for (id, act) in [("a1", ""), ("a2", "fail"), ("a3", "")] {
        process.publish(&Work::of("a", id, act)).await;
    }
    assert_eq!(
        probe.take(8).await,
        [
            "1 begin a1 #1",
            "1 end a1",
            "1 begin a2 #1",
            "1 begin a2 #2",
            "1 begin a2 #3",
            "1 end a2",
            "1 begin a3 #1",
            "1 end a3",
        ]
    );
    process.stop().await;
    Ok(())
}

#[subscriber(group = "lanes", ordered_by = key, concurrency = 4)]
async fn lanes(work: Work, meet: State<Meet>, probe: State<Probe>) {
    meet.0.wait().await;
    probe.note(&work.key);
}

/// Lets handlers go on when so many are there.
struct Meet(tokio::sync::Barrier);

async fn keys_are_spread_over_lanes(world: Arc<World>) -> Ending {
    let probe = Probe::new();
    let setup = world.app("1").register::<lanes>().state(probe.clone());
    let process = setup
        .state(Meet(tokio::sync::Barrier::new(2)))
        .start()
        .await;
    // Were there one lane, no two would ever meet.
    for at in 0..8 {
        let key = format!("k{at}");
        process.publish(&Work::of(&key, &key, "")).await;
    }
    let met = probe.take(2).await;
    assert_ne!(met[0], met[1]);
    process.kill();
    Ok(())
}

const KEYS: usize = 4;
const EACH: usize = 15;

/// Which message fails at first, in the middle.
fn fails(key: usize, at: usize) -> bool {
    (key, at) == (1, 5)
}

/// Publishes work of several keys for two processes that share it.
async fn two_at_work(world: &World, probe: &Probe) -> BTreeMap<&'static str, Process> {
    let mut processes = BTreeMap::new();
    for name in ["1", "2"] {
        let setup = world.app(name).register::<ordered>().state(Who(name));
        processes.insert(name, setup.state(probe.clone()).start().await);
    }
    let desk = world.app("3").set("service.name", "desk");
    let desk = desk.with(App::publish_only).start().await;
    for at in 0..EACH {
        for key in 0..KEYS {
            let act = if fails(key, at) { "fail" } else { "" };
            let id = format!("{key}/{at}");
            desk.publish(&Work::of(&format!("k{key}"), &id, act)).await;
        }
    }
    desk.stop().await;
    processes
}

/// Takes who has worked last out of the two.
fn take_busy(
    processes: &mut BTreeMap<&'static str, Process>,
    notes: &[String],
) -> (&'static str, Process) {
    let last = notes.last().expect("they have worked");
    let busy = if last.starts_with('1') { "1" } else { "2" };
    (busy, processes.remove(busy).expect("it runs"))
}

/// What was noted of a key, without who noted it.
fn of_key(notes: &[String], key: usize) -> Vec<&str> {
    let of_key = format!(" {key}/");
    let found = notes.iter().filter(|note| note.contains(&of_key));
    found.map(|note| &note[2..]).collect()
}

/// Without the attempts of a message that were made before it went to the next process, which counts
/// them anew.
fn counted_anew(notes: Vec<&str>) -> Vec<&str> {
    let mut kept: Vec<&str> = Vec::new();
    for note in notes {
        if note.ends_with(" #1")
            && let Some(at) = kept.iter().position(|earlier| *earlier == note)
        {
            // Nothing of another message may stand in between.
            let message = note.trim_end_matches(" #1");
            let begun_only = |later: &&str| later.starts_with(&format!("{message} #"));
            assert!(kept[at..].iter().all(begun_only), "{kept:?}, then {note}");
            kept.truncate(at);
        }
        kept.push(note);
    }
    kept
}

async fn two_processes_take_turns_in_the_order_of_each_key(world: Arc<World>) -> Ending {
    let probe = Probe::new();
    let mut processes = two_at_work(&world, &probe).await;
    let mut notes = probe.take(KEYS * EACH / 2).await;
    let (busy, process) = take_busy(&mut processes, &notes);
    process.stop().await;
    let ended = |notes: &[String]| notes.iter().filter(|note| note.contains(" end ")).count();
    while ended(&notes) < KEYS * EACH {
        notes.push(probe.next().await);
    }
    probe.quiet().await;
    let by_other = notes.iter().any(|note| !note.starts_with(busy));
    assert!(by_other, "one did it all");
    for key in 0..KEYS {
        let seen = counted_anew(of_key(&notes, key));
        let mut expected = Vec::new();
        for at in 0..EACH {
            for attempt in if fails(key, at) { 1..=3 } else { 1..=1 } {
                expected.push(format!("begin {key}/{at} #{attempt}"));
            }
            expected.push(format!("end {key}/{at}"));
        }
        assert_eq!(seen, expected, "key {key}");
    }
    for process in processes.into_values() {
        process.stop().await;
    }
    world.until_left("ordered", "work", 0).await;
    world.dead("ordered", "work", 0).await;
    Ok(())
}

async fn the_order_of_each_key_outlives_a_crash(world: Arc<World>) -> Ending {
    let probe = Probe::new();
    let mut processes = two_at_work(&world, &probe).await;
    let mut notes = probe.take(KEYS * EACH / 2).await;
    take_busy(&mut processes, &notes).1.kill();
    notes.extend(probe.drain().await);
    let last = |key| format!(" end {key}/{}", EACH - 1);
    while !(0..KEYS).all(|key| notes.iter().any(|note| note.ends_with(&last(key)))) {
        notes.push(probe.next().await);
    }
    probe.quiet().await;
    for key in 0..KEYS {
        let ended = of_key(&notes, key).into_iter();
        let ended: Vec<&str> = ended.filter(|note| note.starts_with("end ")).collect();
        // What the dead one had not acknowledged comes again, and what comes after it as well.
        let mut next = 0;
        for note in &ended {
            let at: usize = note.rsplit('/').next().expect("a number").parse()?;
            assert!(at <= next, "{at} came before {next}: {ended:?}");
            next = next.max(at + 1);
        }
        assert_eq!(next, EACH, "key {key}");
    }
    for process in processes.into_values() {
        process.stop().await;
    }
    world.until_left("ordered", "work", 0).await;
    Ok(())
}

#[subscriber(group = "kept", ordered_by = key, retry(attempts = 3, first = "2s", factor = 1.0))]
async fn kept(work: Work, meta: Meta, probe: State<Probe>) -> Outcome {
    probe.note(format!("{} #{}", work.id, meta.attempt()));
    match &*work.act {
        "fail" => Outcome::retry("always"),
        _ => Outcome::done(),
    }
}

async fn what_waits_in_a_lane_when_the_process_drains_keeps_its_place(world: Arc<World>) -> Ending {
    let probe = Probe::new();
    let setup = world.app("1").register::<kept>().state(probe.clone());
    let process = setup.start().await;
    for (id, act) in [("a1", "fail"), ("a2", ""), ("a3", "")] {
        process.publish(&Work::of("a", id, act)).await;
    }
    probe.expect("a1 #1").await;
    process.stop().await;
    let setup = world.app("2").register::<kept>().state(probe.clone());
    let process = setup.start().await;
    // Nothing can be written on what keeps its place: its attempts begin again, before the others.
    let notes = probe.take(5).await;
    assert_eq!(notes, ["a1 #1", "a1 #2", "a1 #3", "a2 #1", "a3 #1"]);
    let letter = world.dead("kept", "work", 1).await.remove(0);
    assert_eq!(letter.header("message-id"), "a1");
    assert_eq!(letter.header("x-dlq-attempts"), "3");
    probe.quiet().await;
    process.stop().await;
    world.until_left("kept", "work", 0).await;
    Ok(())
}
