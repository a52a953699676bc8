//! RabbitMQ as three servers, of which the one that leads the queue is killed under load: what it confirmed is
//! there without it, and the service goes on at another one.

use interline::testing::ServerFixture;
use interline_tests::harness::soak;
use interline_tests::management::Management;
use serde_json::{Value, json};

use crate::ground::{Kind, OUTPUT, SINK};
use crate::scene::{INPUT, Scene};
use crate::trouble::{LIMIT, Outcome, Trouble, until};

const SERVERS: usize = 3;

/// kill -9 of whichever server leads the input, time and again; the one that was killed comes back each time.
pub(crate) async fn leader_killed() -> Outcome {
    let cluster = ServerFixture::rabbitmq().start_cluster(SERVERS).await?;
    let mut scene = Scene::on(Kind::RabbitMq, &cluster.servers()[0]).await?;
    scene.set_broker(Kind::RabbitMq);
    scene.with_failures("4s");
    scene.set("LEDGER_DELAY_MS", 5);
    let times = if soak() { 20 } else { 2 };
    let outcome = async {
        let vhost = scene.ground.vhost()?;
        let management = vhost.management.clone();
        let (name, url) = (vhost.name.clone(), cluster.url_with_vhost(&vhost.name));
        // A queue on one server alone goes with it.
        management.delete_queue(SINK).await?;
        let replicated = json!({ "x-queue-type": "quorum" });
        management.declare_queue(SINK, replicated).await?;
        management.bind_queue("interline", SINK, OUTPUT).await?;
        scene.at(&url);
        let killing = async |scene: &mut Scene| {
            scene.delayed().await?;
            // A member that was made a moment before its server is killed is not there when that comes back.
            scene.all_safe().await?;
            let mut leader = None;
            until("every queue has all its members", 2 * LIMIT, async || {
                leader = leader_with_all(&management, &name).await;
                Ok(leader.is_some())
            })
            .await?;
            let leader = leader.ok_or_else(|| Trouble::new("there is a leader"))?;
            let killed = cluster.server(&leader);
            let killed = killed.ok_or_else(|| Trouble::new(format!("there is no `{leader}`")))?;
            killed.kill().await?;
            let back = scene.progress().await?;
            eprintln!("{leader} killed: first message handled after {back:.1?}");
            // More than what was on its way.
            for _ in 0..5 {
                scene.progress().await?;
            }
            killed.restart().await?;
            Ok(())
        };
        scene.survives(&url, times, killing).await.map(drop)
    };
    let outcome = outcome.await;
    scene
        .told(outcome.map_err(|trouble| trouble.with(&cluster.logs())))
        .await
}

/// Who leads the input; `None` while a queue lacks a member, or nobody says.
async fn leader_with_all(management: &Management, vhost: &str) -> Option<String> {
    let queues: Vec<Value> = management.get(&["queues", vhost]).await.ok()?;
    let count = |queue: &Value, what: &str| queue[what].as_array().map(Vec::len);
    let lacks = |queue: &&Value| {
        queue["type"] == "quorum"
            && (count(queue, "members") != Some(SERVERS) || count(queue, "online") != Some(SERVERS))
    };
    if queues.iter().any(|queue| lacks(&queue)) {
        return None;
    }
    let input = queues.iter().find(|queue| queue["name"] == INPUT)?;
    Some(input["leader"].as_str()?.to_owned())
}
