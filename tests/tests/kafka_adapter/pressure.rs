//! More than can be handled or taken: what is fetched, and what is published, stays within bounds.

use std::collections::HashSet;
use std::time::Duration;

use interline::testing::Direction;
use interline_tests::harness::Case;
use interline_tests::servers;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use tokio::time::sleep;

use crate::support::{Inbox, LIMIT, Outcome, Stage, close, subscription};

pub fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "a_slow_handler_behind_a_large_backlog_gets_each_message_once",
            slow_behind_a_backlog,
        ),
        Case::new(
            "an_idle_subscription_beside_a_slow_one_is_read_at_once",
            beside_a_slow_one,
        ),
    ]
}

const BODY: usize = 4_096;

/// Lays so many records that cannot be compressed.
async fn lay(stage: &Stage, topic: &str, count: usize) -> Outcome {
    let servers = stage.url.trim_start_matches("kafka://");
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", servers)
        .set("queue.buffering.max.kbytes", "1048576")
        .create()?;
    let topic = stage.named(topic);
    let laid = tokio::task::spawn_blocking(move || {
        let mut random = fastrand::Rng::with_seed(7);
        let mut body = vec![0; BODY];
        for number in 0..count {
            random.fill(&mut body);
            let key = number.to_string();
            let record = BaseRecord::to(&topic).key(&key).payload(&body);
            producer.send(record).map_err(|(error, _)| error)?;
            producer.poll(Duration::ZERO);
        }
        producer.flush(LIMIT)
    });
    Ok(laid.await??)
}

/// What was fetched is not thrown away and fetched again, over and over.
async fn slow_behind_a_backlog() -> Outcome {
    const COUNT: usize = 12_000;
    let here = Stage::new().await?;
    let (proxy, url) = servers::kafka_proxy().await?;
    let mut stage = Stage::at(url);
    stage.prefix.clone_from(&here.prefix);
    let broker = stage.connected("one").await?;
    let mut wanted = subscription("t");
    wanted.prefetch = 16;
    let mut inbox = Inbox::open(&broker, wanted).await?;
    let before = proxy.bytes(Direction::ToClient);
    lay(&here, "t", COUNT).await?;
    let mut seen = HashSet::new();
    while seen.len() < COUNT {
        for _ in 0..16 {
            let incoming = inbox.take().await;
            assert!(!incoming.redelivered, "{:?}", incoming.origin);
            assert!(seen.insert(incoming.id.clone()), "{:?}", incoming.origin);
        }
        sleep(Duration::from_millis(4)).await;
    }
    let fetched = proxy.bytes(Direction::ToClient) - before;
    let share = fetched / u64::try_from(COUNT * BODY)?;
    println!("fetched {fetched} bytes, {share} times all there are");
    assert!(share < 4, "{fetched} bytes were fetched");
    close(&broker).await;
    Ok(())
}

/// One consumer reads both: what the slow one does not take keeps the other from nothing.
async fn beside_a_slow_one() -> Outcome {
    const COUNT: usize = 6_000;
    let stage = Stage::new().await?;
    let broker = stage.connected("one").await?;
    let mut wanted = subscription("slow");
    wanted.prefetch = 1;
    let mut slow = Inbox::open(&broker, wanted).await?;
    let mut other = Inbox::open(&broker, subscription("other")).await?;
    lay(&stage, "slow", COUNT).await?;
    // It is handled from here on, and not finished.
    let held = slow.next().await;
    for number in 0..5 {
        lay(&stage, "other", 1).await?;
        let incoming = other.take().await;
        assert!(!incoming.redelivered, "{number}");
    }
    held.settlement.done().await?;
    for _ in 1..COUNT {
        assert!(!slow.take().await.redelivered);
    }
    close(&broker).await;
    Ok(())
}
