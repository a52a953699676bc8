//! Publishing: confirmed, reported when nobody listens.

use std::sync::Arc;

use interline::handling::PublishErrorKind;

use crate::world::{Outcome, World, cases, message, subscription};

cases![
    many_publishes_at_once_are_all_confirmed_and_arrive,
    what_nobody_listens_to_is_reported,
];

async fn what_nobody_listens_to_is_reported(world: Arc<World>) -> Outcome {
    let process = world.process("1").await;
    let mut reader = process.read(&subscription("t", "g")).await;
    let error = process.broker.publish(message("nobody", "1")).await;
    let error = error.expect_err("nobody listens");
    assert_eq!(error.kind(), PublishErrorKind::Unroutable);
    let same = error.into_outgoing().expect("it comes back");
    assert_eq!((same.id.as_str(), &same.body[..]), ("nobody/1", &b"1"[..]));
    let mut optional = message("nobody", "2");
    optional.subscribers_optional = true;
    process.publish(optional).await;
    reader.expect_quiet().await;
    Ok(())
}

async fn many_publishes_at_once_are_all_confirmed_and_arrive(world: Arc<World>) -> Outcome {
    let process = world.process("1").await;
    let mut reader = process.read(&subscription("t", "g")).await;
    let publishes = (0..500).map(|index| process.publish(message("t", &format!("{index:03}"))));
    let (_, mut bodies) = futures_util::future::join(
        futures_util::future::join_all(publishes),
        reader.take_all(500),
    )
    .await;
    bodies.sort();
    bodies.dedup();
    assert_eq!(bodies.len(), 500);
    reader.expect_quiet().await;
    Ok(())
}
