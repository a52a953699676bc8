//! Closing: within its deadline, whatever state the cluster is in.

use std::time::Duration;

use interline::messaging::{ConnectionState, MessageBroker};
use interline::testing::ServerFixture;
use interline_tests::harness::Case;
use interline_tests::servers;
use tokio::time::{Instant, sleep};

use crate::support::{Inbox, Outcome, Stage, close, message, publish, subscription};

/// How long closing may take, and what the machine may add.
const DEADLINE: Duration = Duration::from_secs(3);
const SLACK: Duration = Duration::from_secs(1);

pub fn cases() -> Vec<Case> {
    vec![
        Case::new("closing_ends_in_time_with_the_cluster_gone", cluster_gone),
        Case::new(
            "closing_ends_in_time_with_the_cluster_silent",
            cluster_silent,
        ),
        Case::new("closing_ends_in_time_with_the_topic_deleted", topic_deleted),
        Case::new("closing_ends_in_time_during_a_rebalance", rebalance),
        Case::new("dropping_ends_the_threads", dropped),
    ]
}

async fn closes_in_time(broker: &interline::messaging::kafka::Kafka) {
    let begun = Instant::now();
    broker.disconnect(begun + DEADLINE).await;
    let took = begun.elapsed();
    assert!(took < DEADLINE + SLACK, "{took:?}");
    assert_eq!(broker.health_check().state, ConnectionState::Closed);
}

async fn cluster_gone() -> Outcome {
    let (proxy, url) = servers::kafka_proxy().await?;
    let stage = Stage::at(url);
    let broker = stage.connected("one").await?;
    let mut inbox = Inbox::open(&broker, subscription("t")).await?;
    publish(&broker, message("t", "1")).await;
    let _out = inbox.next().await;
    proxy.refuse(true).await?;
    proxy.reset_all().await;
    closes_in_time(&broker).await;
    Ok(())
}

async fn cluster_silent() -> Outcome {
    let server = ServerFixture::kafka().start().await?;
    let stage = Stage::at(server.url());
    let broker = stage.connected("one").await?;
    let mut inbox = Inbox::open(&broker, subscription("t")).await?;
    publish(&broker, message("t", "1")).await;
    let _out = inbox.next().await;
    server.pause().await?;
    closes_in_time(&broker).await;
    server.resume().await?;
    Ok(())
}

async fn topic_deleted() -> Outcome {
    let stage = Stage::new().await?;
    let broker = stage.connected("one").await?;
    let mut inbox = Inbox::open(&broker, subscription("t")).await?;
    publish(&broker, message("t", "1")).await;
    let _out = inbox.next().await;
    stage.delete_topic("t").await?;
    closes_in_time(&broker).await;
    Ok(())
}

async fn rebalance() -> Outcome {
    let stage = Stage::new().await?;
    let mut wanted = subscription("t");
    wanted.kafka.partitions = Some(4);
    let steady = stage.connected("steady").await?;
    let mut inbox = Inbox::open(&steady, wanted.clone()).await?;
    for round in 0..5_u64 {
        let other = stage.connected(&format!("other-{round}")).await?;
        let _joining = Inbox::begin(&other, wanted.clone()).await?;
        // At another point of the rebalance each time.
        sleep(Duration::from_millis(round * 150)).await;
        closes_in_time(&other).await;
    }
    publish(&steady, message("t", "1")).await;
    inbox.take().await;
    closes_in_time(&steady).await;
    Ok(())
}

async fn dropped() -> Outcome {
    let mut stage = Stage::new().await?;
    // The kernel keeps 15 letters of a thread's name: what tells ours apart has to come first.
    stage.prefix = format!("{:07x}.", fastrand::u32(..1 << 28));
    let threads = || -> usize {
        let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten();
        let names = tasks
            .flatten()
            .filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
        let mark = format!("kafka-{}", stage.prefix);
        names.filter(|name| name.starts_with(&mark)).count()
    };
    let broker = stage.connected("one").await?;
    let _inbox = Inbox::open(&broker, subscription("t")).await?;
    assert!(threads() >= 1, "the group has a thread");
    drop(broker);
    crate::support::eventually(|| threads() == 0, || format!("{} threads", threads())).await;
    let broker = stage.connected("two").await?;
    close(&broker).await;
    Ok(())
}
