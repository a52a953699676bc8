//! What is between the service and the broker fails.

use interline::testing::{Direction, FaultProxy};
use interline_tests::harness::soak;

use crate::ground::Kind;
use crate::of_broker::place;
use crate::scene::{CONNECTED, Scene};
use crate::trouble::{LIMIT, Outcome, until};

const LOST: &str = "connection lost";

/// A fault of the network.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// Every connection is reset.
    Reset,
    /// Every connection is reset within a frame.
    Cut,
    /// Nothing arrives in this direction.
    Stall(Direction),
    /// Nothing arrives anywhere, and connections stay open.
    BlackHole,
}

/// Connections are reset at random moments and in the middle of a frame.
pub(crate) async fn cut(kind: Kind) -> Outcome {
    let rounds = if soak() { 20 } else { 3 };
    survives(kind, &[Fault::Reset, Fault::Cut], rounds).await
}

/// One direction stalls, then the other.
pub(crate) async fn stalled(kind: Kind) -> Outcome {
    let rounds = if soak() { 5 } else { 1 };
    let ways = [Direction::ToServer, Direction::ToClient];
    survives(kind, &ways.map(Fault::Stall), rounds).await
}

/// Everything is swallowed.
pub(crate) async fn black_holed(kind: Kind) -> Outcome {
    survives(kind, &[Fault::BlackHole], if soak() { 10 } else { 1 }).await
}

async fn survives(kind: Kind, faults: &[Fault], rounds: usize) -> Outcome {
    let server = kind.shared().await?;
    let mut scene = Scene::on(kind, server).await?;
    let place = place(server.url())?;
    let proxy = FaultProxy::start(place).await?;
    let url = scene
        .ground
        .url()
        .replace(place, &proxy.address().to_string());
    scene.at(&url);
    scene.set_broker(kind);
    scene.with_failures("4s");
    scene.set("LEDGER_DELAY_MS", 5);
    let outcome = async {
        let service = scene.start().await?;
        // The load has a way of its own.
        let sender = scene.sender().await?;
        let load = sender.start();
        for _ in 0..rounds {
            for fault in faults {
                scene.progress().await?;
                scene.moment(300).await;
                let (lost, made) = (service.said(LOST), service.said(CONNECTED));
                match fault {
                    Fault::Reset => drop(proxy.reset_all().await),
                    Fault::Cut => proxy.cut_after(scene.rng.u64(1..20_000)),
                    Fault::Stall(direction) => proxy.stall(*direction, true),
                    Fault::BlackHole => proxy.black_hole(true),
                }
                let noticed = until("the service sees the fault", LIMIT, async || {
                    Ok(service.said(LOST) > lost)
                })
                .await?;
                proxy.restore().await?;
                let connected = until("the service connects again", LIMIT, async || {
                    Ok(service.said(CONNECTED) > made)
                })
                .await?;
                let back = connected + scene.progress().await?;
                eprintln!("{fault:?}: seen after {noticed:.1?}, handling {back:.1?} later");
            }
        }
        let published = load.stop().await?;
        sender.close().await;
        let sums = scene.finish(service, &published).await?;
        scene.repeats_at_most(&sums, rounds * faults.len())
    };
    let outcome = outcome.await;
    scene.told(outcome).await
}
