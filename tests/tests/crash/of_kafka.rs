//! What only Kafka can do to a service: partitions with a leader, a client that hides faults of the network.

use std::time::Duration;

use interline::testing::{Direction, ServerFixture};
use interline_tests::harness::soak;
use interline_tests::servers;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use tokio::time::sleep;

use crate::ground::Kind;
use crate::scene::Scene;
use crate::trouble::{LIMIT, Outcome, Trouble, until};

/// Longer than a session, so that the partitions are lost.
const SILENCE: Duration = Duration::from_secs(4);

/// Three servers, of which two have to acknowledge: the leader of a partition is killed under load, and what
/// it acknowledged is there without it. The others go on meanwhile.
pub(crate) async fn leader_killed() -> Outcome {
    let cluster = ServerFixture::kafka()
        .config_line("min.insync.replicas=2")
        // A server that is gone is missed after 9 s unless told.
        .config_line("broker.session.timeout.ms=3000")
        .config_line("broker.heartbeat.interval.ms=500")
        .start_cluster(3)
        .await?;
    // Whatever is asked of it is asked of all of them.
    let mut scene = Scene::on_cluster(cluster.url()).await?;
    scene.with_failures("4s");
    scene.set("LEDGER_DELAY_MS", 5);
    let prefix = scene.ground.prefix().unwrap_or_default().to_owned();
    let times = if soak() { 20 } else { 2 };
    let url = cluster.url();
    let outcome = scene
        .survives(url, times, async |scene| {
            let mut leader = None;
            until("every replica is in sync", 2 * LIMIT, async || {
                leader = leader_in_sync(url, &prefix, 3).await?;
                Ok(leader.is_some())
            })
            .await?;
            let leader = leader.ok_or_else(|| Trouble::new("there is a leader"))?;
            let killed = &cluster.servers()[leader - 1];
            killed.kill().await?;
            let back = scene.progress().await?;
            eprintln!("{leader} killed: first message handled after {back:.1?}");
            // More than what was on its way.
            for _ in 0..5 {
                scene.progress().await?;
            }
            killed.restart().await?;
            Ok(())
        })
        .await;
    let outcome = outcome.map(drop);
    scene
        .told(outcome.map_err(|trouble| trouble.with(&cluster.logs())))
        .await
}

/// Who leads the first partition of the input; `None` while a topic of the case lacks replicas in sync.
async fn leader_in_sync(url: &str, prefix: &str, replicas: usize) -> Outcome<Option<usize>> {
    let servers = url.trim_start_matches("kafka://").to_owned();
    let prefix = prefix.to_owned();
    let asked = tokio::task::spawn_blocking(move || {
        let client: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", servers)
            .create()?;
        let metadata = client.fetch_metadata(None, Duration::from_secs(10))?;
        let own = metadata.topics().iter().filter(|topic| {
            topic.name().starts_with(&prefix) || topic.name().starts_with("__consumer")
        });
        let mut leader = None;
        for topic in own {
            for partition in topic.partitions() {
                if partition.isr().len() < replicas {
                    return Ok(None);
                }
                if topic.name().ends_with("ledger.input") && partition.id() == 0 {
                    leader = usize::try_from(partition.leader()).ok();
                }
            }
        }
        Ok::<_, rdkafka::error::KafkaError>(leader)
    });
    Ok(asked.await??)
}

/// The network between service and server resets, stalls and swallows. The client library hides what is over
/// soon, so nobody is asked whether it was noticed.
pub(crate) async fn network_fails() -> Outcome {
    let (proxy, proxied) = servers::kafka_proxy().await?;
    let mut scene = Scene::on(Kind::Kafka, servers::kafka().await?).await?;
    scene.at(&proxied);
    scene.with_failures("4s");
    scene.set("LEDGER_DELAY_MS", 5);
    let faults = ["reset", "cut", "to_server", "to_client", "black_hole"];
    let times = faults.len() * if soak() { 10 } else { 1 };
    let (url, mut next) = (scene.ground.url().to_owned(), faults.iter().cycle());
    let outcome = scene
        .survives(&url, times, async |scene| {
            match next.next().copied() {
                Some("reset") => drop(proxy.reset_all().await),
                Some("cut") => proxy.cut_after(scene.rng.u64(1..20_000)),
                Some("to_server") => proxy.stall(Direction::ToServer, true),
                Some("to_client") => proxy.stall(Direction::ToClient, true),
                _ => proxy.black_hole(true),
            }
            sleep(SILENCE).await;
            proxy.restore().await?;
            Ok(())
        })
        .await;
    scene.told(outcome.map(drop)).await
}
