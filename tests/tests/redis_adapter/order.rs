//! The one reader of an ordered subscription.

use std::time::Duration;

use interline::messaging::{MessageBroker, OrderedBy, Settled, Subscription};
use tokio::time::Instant;

use crate::cases;
use crate::support::{
    Inbox, LIMIT, Outcome, Stage, eventually, numbers, publish, subscription, text,
};

cases![
    a_holder_that_is_silent_loses_the_lease_and_the_order_holds,
    what_the_holder_had_out_comes_first,
];

const LEASE: &str = "{t}:billing:lease";

fn ordered() -> Subscription {
    let mut wanted = subscription("t");
    wanted.ordered_by = Some(OrderedBy::Key);
    wanted.prefetch = 4;
    wanted
}

async fn a_holder_that_is_silent_loses_the_lease_and_the_order_holds() -> Outcome {
    let short = |config: interline::Config| config.with("brokers.main.lease", "1s");
    let stage = Stage::with(short).await?;
    let mut inbox = Inbox::open(&stage.broker, ordered()).await?;
    publish(&stage.broker, numbers(0..10)).await?;
    let (first, out) = inbox.next().await;
    assert_eq!(text(&first), "0000");
    // Somebody else has it, as after a pause of this process: what is late changes nothing.
    stage
        .database
        .command(&["SET", LEASE, "somebody/1", "PX", "2500"])
        .await?;
    let (second, late) = inbox.next().await;
    assert_eq!(text(&second), "0001");
    assert_eq!(late.done().await?, Settled::Stale);
    eventually(
        async || !out.is_current(),
        || "it goes on all the same".to_owned(),
    )
    .await;
    let pending = stage
        .database
        .command(&["XPENDING", "t", "billing"])
        .await?;
    assert!(format!("{pending:?}").contains("int(4)"), "{pending:?}");
    // The lease of somebody who is gone runs out, and everything comes in order.
    assert_eq!(inbox.take_all(10).await, numbers(0..10).collect::<Vec<_>>());
    inbox.expect_quiet().await;
    let fence = stage
        .database
        .number(&["HGET", "{t}:billing:state", "fence"])
        .await?;
    assert_eq!(fence, 2);
    stage.end().await
}

async fn what_the_holder_had_out_comes_first() -> Outcome {
    let stage = Stage::new().await?;
    let two = stage.another("two", |config| config).await?;
    let mut first = Inbox::open(&stage.broker, ordered()).await?;
    let mut second = Inbox::open(&two, ordered()).await?;
    publish(&stage.broker, numbers(0..20)).await?;
    assert_eq!(first.take().await, "0000");
    let mut out = Vec::new();
    for _ in 0..3 {
        out.push(first.next().await);
    }
    // It goes down with three in its hands, one of them done.
    let (_, settlement) = out.remove(1);
    assert_eq!(settlement.done().await?, Settled::Yes);
    stage.broker.disconnect(Instant::now() + LIMIT).await;
    let mut expected: Vec<_> = numbers(1..20).collect();
    expected.remove(1);
    assert_eq!(second.take_all(18).await, expected);
    second.expect_quiet().await;
    assert_eq!(stage.database.number(&["EXISTS", LEASE]).await?, 1);
    two.disconnect(Instant::now() + Duration::from_secs(5))
        .await;
    assert_eq!(stage.database.number(&["EXISTS", LEASE]).await?, 0);
    stage.database.delete().await?;
    Ok(())
}
