//! The service is killed, and asked to end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use interline_tests::harness::soak;
use interline_tests::ledger::Decision;
use tokio::time::{Instant, sleep};

use crate::ground::Kind;
use crate::scene::{DRAIN, INPUT, Scene, Sums};
use crate::trouble::{LIMIT, Outcome, ensure, until};

/// SIGKILL at random moments under load: what was confirmed is handled or a dead letter, and what is
/// done twice is at most what was in flight.
pub(crate) async fn killed(kind: Kind) -> Outcome {
    let server = kind.shared().await?;
    let mut scene = Scene::on(kind, server).await?;
    scene.with_failures("4s");
    scene.set("LEDGER_DELAY_MS", 5);
    let kills = if soak() { 100 } else { 8 };
    let outcome = async {
        let sums = kill_under_load(&mut scene, kills).await?;
        scene.repeats_at_most(&sums, kills)?;
        let never: Vec<u64> = sums.dead.iter().copied().filter(|n| n % 25 != 7).collect();
        ensure(never.is_empty(), || {
            format!("dead letters that should have been handled: {never:?}")
        })
    };
    let outcome = outcome.await;
    scene.told(outcome).await
}

/// The same with order by key: seen for the first time, the messages of a lane are in their order.
pub(crate) async fn killed_in_order(kind: Kind) -> Outcome {
    let server = kind.shared().await?;
    let mut scene = Scene::on(kind, server).await?;
    scene.in_order();
    scene.with_failures("50ms");
    let kills = if soak() { 100 } else { 4 };
    let outcome = async {
        let sums = kill_under_load(&mut scene, kills).await?;
        let mut last: BTreeMap<u64, u64> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for entry in &sums.entries {
            let is_first = entry.decision != Decision::Again && seen.insert(entry.n);
            if !is_first {
                continue;
            }
            let before = last.insert(entry.lane, entry.n);
            ensure(before.is_none_or(|before| before < entry.n), || {
                format!("lane {}: {before:?} came before {}", entry.lane, entry.n)
            })?;
        }
        Ok(())
    };
    let outcome = outcome.await;
    scene.told(outcome).await
}

async fn kill_under_load(scene: &mut Scene, kills: usize) -> Outcome<Sums> {
    let mut service = scene.start().await?;
    let sender = scene.sender().await?;
    let load = sender.start();
    for _ in 0..kills {
        scene.progress().await?;
        scene.moment(400).await;
        service.kill().await?;
        service = scene.start().await?;
    }
    let published = load.stop().await?;
    sender.close().await;
    scene.finish(service, &published).await
}

/// SIGKILL inside the handler, between its effect and the confirm of its output, and between that
/// confirm and the acknowledgement: exactly as much is done twice as was done.
pub(crate) async fn killed_at_each_point(kind: Kind) -> Outcome {
    let server = kind.shared().await?;
    // Where it hangs; how often the message is noted in the end, and its output published.
    for (place, attempts, outputs) in [("handler", 1, 1), ("effect", 2, 1), ("confirm", 2, 2)] {
        let mut scene = Scene::on(kind, server).await?;
        scene.set("LEDGER_HANG", place);
        let outcome = async {
            let service = scene.start().await?;
            let sender = scene.sender().await?;
            let published = sender.send(1).await?;
            sender.close().await;
            until("the service hangs", LIMIT, async || {
                Ok(service.said("hangs at") > 0)
            })
            .await?;
            service.kill().await?;
            scene.set("LEDGER_HANG", "");
            let service = scene.start().await?;
            let sums = scene.finish(service, &published).await?;
            let counts = (sums.confirmed, sums.entries.len(), sums.outputs);
            ensure(counts == (1, attempts, outputs), || {
                format!("killed at {place}: {sums:?}")
            })
        };
        let outcome = outcome.await;
        scene.told(outcome).await?;
    }
    Ok(())
}

/// SIGTERM under load: it ends with success in time, and nothing is done twice or comes back.
pub(crate) async fn terminated(kind: Kind) -> Outcome {
    let server = kind.shared().await?;
    let mut scene = Scene::on(kind, server).await?;
    scene.set("LEDGER_DELAY_MS", 20);
    let rounds = if soak() { 20 } else { 5 };
    let outcome = async {
        let mut service = scene.start().await?;
        let sender = scene.sender().await?;
        // Never without work, so that much is settled at the moment of the signal.
        let mut published = sender.send(rounds * 200).await?;
        let load = sender.start();
        let mut longest = Duration::ZERO;
        for _ in 0..rounds {
            scene.progress().await?;
            scene.moment(400).await;
            longest = longest.max(service.terminate(DRAIN).await?);
            service = scene.start().await?;
        }
        published.add(load.stop().await?);
        sender.close().await;
        let sums = scene.finish(service, &published).await?;
        eprintln!("SIGTERM {rounds} times: {longest:.1?} at most");
        let handled = sums.entries.len();
        // Something that came back would be handled again.
        let again = scene.start().await?;
        let outside = scene.ground.outside().await?;
        until("the queue is empty", LIMIT, async || {
            let counts = outside.counts(INPUT).await?;
            Ok(counts.is_some_and(|counts| counts.ready == 0))
        })
        .await?;
        again.terminate(DRAIN).await?;
        let after = scene.ledger.entries()?.len();
        ensure(after == handled, || {
            format!("{} came back after the last end", after - handled)
        })?;
        ensure(sums.duplicates == 0, || {
            let mut seen = BTreeSet::new();
            let twice: Vec<u64> = sums
                .entries
                .iter()
                .filter(|entry| !seen.insert(entry.n))
                .map(|entry| entry.n)
                .collect();
            format!("handled twice: {twice:?}")
        })?;
        let unknown = handled - sums.confirmed.min(handled);
        let exact = unknown <= published.unknown.len() && sums.outputs == handled;
        ensure(exact && sums.dead.is_empty(), || {
            format!("the sums differ: {sums:?}")
        })
    };
    let outcome = outcome.await;
    scene.told(outcome).await
}

/// A second SIGTERM does not wait for anything.
pub(crate) async fn terminated_twice(kind: Kind) -> Outcome {
    let server = kind.shared().await?;
    let mut scene = Scene::on(kind, server).await?;
    scene.set("LEDGER_SLOW_ONCE_MS", 20_000);
    let outcome = async {
        let service = scene.start().await?;
        let sender = scene.sender().await?;
        let mut published = sender.send(1).await?;
        sender.close().await;
        let outside = scene.ground.outside().await?;
        until("the message is with the handler", LIMIT, async || {
            let counts = outside.counts(INPUT).await?;
            Ok(counts.is_some_and(|counts| counts.ready == 0))
        })
        .await?;
        service.signal_to_end().await?;
        until("the first signal is heard", LIMIT, async || {
            Ok(service.said("going down") > 0)
        })
        .await?;
        let begun = std::time::Instant::now();
        service.signal_to_end().await?;
        let status = service.ended(Duration::from_secs(10)).await?;
        let took = begun.elapsed();
        ensure(status.code() == Some(143), || format!("{status}"))?;
        ensure(took < Duration::from_secs(3), || format!("after {took:?}"))?;
        // The message was not acknowledged.
        scene.set("LEDGER_SLOW_ONCE_MS", 0);
        let service = scene.start().await?;
        published.unknown.clear();
        let sums = scene.finish(service, &published).await?;
        ensure(sums.entries.len() == 1 && sums.confirmed == 1, || {
            format!("{sums:?}")
        })
    };
    let outcome = outcome.await;
    scene.told(outcome).await
}

/// Instances come and go every second under load, now in order and now killed: nothing is lost, and nothing stays
/// behind.
pub(crate) async fn members_change(kind: Kind) -> Outcome {
    let server = kind.shared().await?;
    let mut scene = Scene::on(kind, server).await?;
    scene.with_failures("4s");
    scene.set("LEDGER_DELAY_MS", 5);
    let rounds = if soak() { 60 } else { 6 };
    let outcome = async {
        let mut members = vec![scene.start().await?, scene.start().await?];
        let sender = scene.sender().await?;
        let load = sender.start();
        for round in 0..rounds {
            scene.progress().await?;
            members.push(scene.start().await?);
            scene.moment(1_000).await;
            let leaves = members.remove(0);
            if round % 2 == 0 {
                leaves.terminate(DRAIN).await?;
            } else {
                leaves.kill().await?;
            }
        }
        let published = load.stop().await?;
        sender.close().await;
        let last = members.remove(0);
        for member in members {
            member.terminate(DRAIN).await?;
        }
        if kind == Kind::Redis {
            // The consumers of those that were killed go when they hold nothing.
            let database = scene.ground.database()?;
            until("the consumers of the dead are gone", LIMIT, async || {
                let consumers = ["XINFO", "CONSUMERS", "ledger.input", "ledger"];
                let found = database.command(&consumers).await?;
                Ok(format!("{found:?}").matches("ledger-").count() <= 1)
            })
            .await?;
        }
        let sums = scene.finish(last, &published).await?;
        scene.repeats_at_most(&sums, rounds)
    };
    let outcome = outcome.await;
    scene.told(outcome).await
}

/// A minute without a message is a minute without an error.
pub(crate) async fn idle(kind: Kind) -> Outcome {
    let server = kind.shared().await?;
    let scene = Scene::on(kind, server).await?;
    let outcome = async {
        let service = scene.start().await?;
        let sender = scene.sender().await?;
        let mut published = sender.send(10).await?;
        let count = || service.said(" WARN ") + service.said(" ERROR ");
        let (begun, before) = (Instant::now(), count());
        while begun.elapsed() < Duration::from_secs(60) {
            sleep(Duration::from_millis(500)).await;
            let said = count() - before;
            ensure(said == 0, || format!("{said} complaints were logged"))?;
        }
        published.add(sender.send(10).await?);
        sender.close().await;
        let sums = scene.finish(service, &published).await?;
        ensure(sums.entries.len() == 20, || format!("{sums:?}"))?;
        let outside = scene.ground.outside().await?;
        let counts = outside.counts(INPUT).await?;
        ensure(counts.is_some_and(|counts| counts.consumers == 0), || {
            format!("{counts:?}")
        })
    };
    let outcome = outcome.await;
    scene.told(outcome).await
}
