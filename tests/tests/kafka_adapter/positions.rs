//! Reading again: positions that are moved, windows that are replayed.

use std::time::{Duration, SystemTime};

use interline::messaging::kafka::Position;
use interline::messaging::{BrokerErrorKind, Settled};
use interline_tests::harness::Case;
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::support::{Inbox, Outcome, Stage, close, message, publish, subscription, text};

pub fn cases() -> Vec<Case> {
    vec![
        Case::new("positions_are_reset_while_nobody_reads", reset),
        Case::new("a_running_subscription_seeks", seek),
        Case::new("a_window_is_replayed_beside_the_live_group", replay),
    ]
}

async fn reset() -> Outcome {
    let stage = Stage::new().await?;
    let wanted = subscription("t");
    let one = stage.connected("one").await?;
    let mut inbox = Inbox::open(&one, wanted.clone()).await?;
    for body in ["1", "2", "3"] {
        publish(&one, message("t", body)).await;
        inbox.take().await;
    }
    let refused = one.reset(&wanted, Position::Earliest).await;
    let refused = refused.expect_err("it is being read");
    assert_eq!(refused.kind(), BrokerErrorKind::Refused, "{refused}");
    close(&one).await;
    let two = stage.connected("two").await?;
    two.reset(&wanted, Position::Earliest).await?;
    let mut inbox = Inbox::open(&two, wanted.clone()).await?;
    for body in ["1", "2", "3"] {
        assert_eq!(text(&inbox.take().await), body);
    }
    close(&two).await;
    let three = stage.connected("three").await?;
    publish(&three, message("t", "skipped")).await;
    three.reset(&wanted, Position::Latest).await?;
    let mut inbox = Inbox::open(&three, wanted).await?;
    publish(&three, message("t", "4")).await;
    assert_eq!(text(&inbox.take().await), "4");
    close(&three).await;
    Ok(())
}

async fn seek() -> Outcome {
    let stage = Stage::new().await?;
    let wanted = subscription("t");
    let broker = stage.connected("one").await?;
    let none = broker.seek(&wanted, Position::Earliest).await;
    let none = none.expect_err("it is not read");
    assert_eq!(none.kind(), BrokerErrorKind::NotFound);
    let mut inbox = Inbox::open(&broker, wanted.clone()).await?;
    for body in ["1", "2"] {
        publish(&broker, message("t", body)).await;
        inbox.take().await;
    }
    sleep(Duration::from_millis(50)).await;
    let middle = SystemTime::now();
    sleep(Duration::from_millis(50)).await;
    publish(&broker, message("t", "3")).await;
    let out = inbox.next().await;
    assert_eq!(broker.seek(&wanted, Position::Earliest).await?, 1);
    assert_eq!(out.settlement.done().await?, Settled::Stale);
    for body in ["1", "2", "3"] {
        assert_eq!(text(&inbox.take().await), body);
    }
    assert_eq!(broker.seek(&wanted, Position::Time(middle)).await?, 1);
    assert_eq!(text(&inbox.take().await), "3");
    inbox.expect_quiet(Duration::from_millis(500)).await;
    close(&broker).await;
    Ok(())
}

async fn replay() -> Outcome {
    let stage = Stage::new().await?;
    let broker = stage.connected("one").await?;
    let mut inbox = Inbox::open(&broker, subscription("t")).await?;
    let mut times = Vec::new();
    for body in ["1", "2", "3", "4"] {
        times.push(SystemTime::now());
        publish(&broker, message("t", body)).await;
        inbox.take().await;
        sleep(Duration::from_millis(30)).await;
    }
    let (sender, mut replayed) = mpsc::channel(16);
    let window = (Position::Time(times[1]), Position::Time(times[3]));
    assert_eq!(broker.replay("t", window, sender).await?, 2);
    let mut bodies = Vec::new();
    while let Some(incoming) = replayed.recv().await {
        assert_eq!((&*incoming.topic, incoming.redelivered), ("t", false));
        bodies.push(text(&incoming));
    }
    assert_eq!(bodies, ["2", "3"]);
    // The live group does not notice.
    publish(&broker, message("t", "5")).await;
    assert_eq!(text(&inbox.take().await), "5");
    inbox.expect_quiet(Duration::from_millis(500)).await;
    close(&broker).await;
    Ok(())
}
