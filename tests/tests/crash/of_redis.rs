//! What only Redis can do to a service, or its kind of group.

use std::time::Duration;

use interline::testing::{Direction, FaultProxy, ServerFixture};
use interline_tests::ledger::Decision;

use crate::ground::{Ground, Kind};
use crate::of_broker::place;
use crate::scene::{CONNECTED, Scene};
use crate::trouble::{LIMIT, Outcome, ensure, until};

const BACK: Duration = Duration::from_secs(15);

/// `CLIENT KILL` of everything the service has, again and again, with a backlog.
pub(crate) async fn connections_closed() -> Outcome {
    let server = Kind::Redis.shared().await?;
    let mut scene = Scene::on(Kind::Redis, server).await?;
    scene.set("LEDGER_DELAY_MS", 20);
    let outcome = async {
        let database = scene.ground.database()?;
        let service = scene.start().await?;
        let sender = scene.sender().await?;
        let published = sender.send(5_000).await?;
        sender.close().await;
        for _ in 0..5 {
            scene.progress().await?;
            let made = service.said(CONNECTED);
            let closed = database.close_connections(" name=ledger/").await?;
            ensure(closed >= 1, || format!("{closed} were closed"))?;
            let took = until("the service connects again", BACK, async || {
                Ok(service.said(CONNECTED) > made)
            })
            .await?;
            let back = scene.progress().await?;
            eprintln!("closed {closed}: connected after {took:.1?}, handling {back:.1?} later");
        }
        service.kill().await?;
        // The rest at full speed.
        scene.set("LEDGER_DELAY_MS", 0);
        let service = scene.start().await?;
        let sums = scene.finish(service, &published).await?;
        scene.repeats_at_most(&sums, 6)
    };
    let outcome = outcome.await;
    scene.told(outcome).await
}

/// Somebody destroys the group under a live consumer.
pub(crate) async fn group_destroyed() -> Outcome {
    let server = Kind::Redis.shared().await?;
    let scene = Scene::on(Kind::Redis, server).await?;
    let outcome = async {
        let database = scene.ground.database()?;
        let service = scene.start().await?;
        let sender = scene.sender().await?;
        let load = sender.start();
        for _ in 0..3 {
            scene.progress().await?;
            database
                .command(&["XGROUP", "DESTROY", "ledger.input", "ledger"])
                .await?;
            scene.progress().await?;
        }
        let published = load.stop().await?;
        sender.close().await;
        scene.finish(service, &published).await.map(drop)
    };
    let outcome = outcome.await;
    scene.told(outcome).await
}

/// The server is killed and its replica promoted in its place, under load. What the replica had been told
/// is handled; what it had not is lost, and nothing else.
pub(crate) async fn replica_promoted() -> Outcome {
    const STREAM: &str = "ledger.input";
    let primary = Kind::Redis.own().await?;
    let link = FaultProxy::start(place(primary.url())?).await?;
    let replica = ServerFixture::redis()
        .config_line(format!("replicaof 127.0.0.1 {}", link.address().port()))
        .start()
        .await?;
    let mut scene = Scene::on(Kind::Redis, &primary).await?;
    let front = FaultProxy::start(place(primary.url())?).await?;
    let (address, seed) = (front.address(), front.seed());
    let database = scene.ground.database()?.on_copy(&primary)?;
    let copy = database.on_copy(&replica)?;
    let url = database
        .url
        .replace(place(primary.url())?, &address.to_string());
    scene.at(&url);
    scene.with_failures("4s");
    // A backlog of some seconds: what comes last is not reached before the kill.
    scene.set("LEDGER_DELAY_MS", 400);
    let outcome = async {
        let service = scene.start().await?;
        let sender = scene.sender_at(&url).await?;
        let mut published = sender.send(300).await?;
        let length = ["XLEN", STREAM];
        until("the replica has everything", LIMIT, async || {
            Ok(copy.number(&length).await? == database.number(&length).await?)
        })
        .await?;
        link.stall(Direction::ToClient, true);
        let untold = sender.send(50).await?;
        ensure(untold.confirmed.len() == 50, || {
            format!("{} of 50 were confirmed", untold.confirmed.len())
        })?;
        scene.progress().await?;
        let made = service.said(CONNECTED);
        primary.kill().await?;
        drop((front, link));
        copy.command(&["REPLICAOF", "NO", "ONE"]).await?;
        let had = copy.number(&length).await?;
        ensure(had == 300, || format!("the replica has {had} messages"))?;
        // The same address leads to the other server.
        let mut moved = None;
        until("the address is free", LIMIT, async || {
            let moving = FaultProxy::start_at(address, place(replica.url())?, seed).await;
            moved = moving.ok();
            Ok(moved.is_some())
        })
        .await?;
        let took = until("the service connects again", BACK * 2, async || {
            Ok(service.said(CONNECTED) > made)
        })
        .await?;
        let back = scene.progress().await?;
        eprintln!("promoted: connected after {took:.1?}, handling {back:.1?} later");
        let groups = format!("{:?}", copy.command(&["XINFO", "GROUPS", STREAM]).await?);
        let consumers = ["XINFO", "CONSUMERS", STREAM, "ledger"];
        let consumers = format!("{:?}", copy.command(&consumers).await?);
        ensure(groups.matches("\"ledger\"").count() == 1, || groups.clone())?;
        ensure(consumers.matches("\"ledger-").count() == 1, || {
            consumers.clone()
        })?;
        published.add(sender.send(100).await?);
        sender.close().await;
        let unknown = published.unknown.len();
        ensure(published.confirmed.len() == 400, || {
            format!("{} confirmed, {unknown} unknown", published.confirmed.len())
        })?;
        // The account is that of the server that is left.
        scene.ground = Ground::Redis(copy);
        let sums = scene.finish(service, &published).await?;
        let decided = |n: &u64| {
            let mut entries = sums.entries.iter();
            entries.any(|entry| entry.n == *n && entry.decision != Decision::Again)
        };
        let kept: Vec<_> = untold.confirmed.keys().filter(|n| decided(n)).collect();
        ensure(kept.is_empty(), || {
            format!("handled, and the replica never had them: {kept:?}")
        })
    };
    let outcome = outcome.await;
    scene.told(outcome).await
}
