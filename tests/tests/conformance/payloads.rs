//! Bodies and headers of every kind, unchanged.

use std::sync::Arc;

use bytes::Bytes;
use interline::HeaderValue;

use crate::world::{Outcome, World, cases, message, subscription};

cases![
    a_body_of_ten_megabytes_arrives_unchanged,
    an_empty_body_arrives,
    headers_of_every_type_arrive_and_survive_a_retry,
];

async fn a_body_of_ten_megabytes_arrives_unchanged(world: Arc<World>) -> Outcome {
    let process = world.process("1").await;
    let mut reader = process.read(&subscription("t", "g")).await;
    let body = Bytes::from(
        (0..10 << 20)
            .map(|at: u32| at.to_le_bytes()[1])
            .collect::<Vec<_>>(),
    );
    let mut outgoing = message("t", "big");
    outgoing.body = body.clone();
    process.publish(outgoing).await;
    let (incoming, settlement) = reader.next().await;
    assert!(incoming.body == body, "the body differs");
    settlement.done().await?;
    Ok(())
}

async fn an_empty_body_arrives(world: Arc<World>) -> Outcome {
    let process = world.process("1").await;
    let mut reader = process.read(&subscription("t", "g")).await;
    let mut outgoing = message("t", "nothing");
    outgoing.body = Bytes::new();
    process.publish(outgoing).await;
    let (incoming, settlement) = reader.next().await;
    assert_eq!(
        (incoming.body.len(), incoming.id.as_str()),
        (0, "t/nothing")
    );
    settlement.done().await?;
    Ok(())
}

async fn headers_of_every_type_arrive_and_survive_a_retry(world: Arc<World>) -> Outcome {
    let process = world.process("1").await;
    let mut reader = process.read(&subscription("t", "g")).await;
    let values = [
        ("x-bool", HeaderValue::Bool(true)),
        (
            "x-bytes",
            HeaderValue::Bytes(Bytes::from_static(b"\xff\x00")),
        ),
        ("x-float", HeaderValue::Float(1.25)),
        ("x-int", HeaderValue::Int(-7)),
        (
            "x-list",
            HeaderValue::List(vec![HeaderValue::Int(1), HeaderValue::from("two")]),
        ),
        ("x-null", HeaderValue::Null),
        (
            "x-table",
            HeaderValue::Table(vec![("inner".to_owned(), HeaderValue::Bool(false))]),
        ),
        ("x-text", HeaderValue::from("text")),
        ("x-time", HeaderValue::Timestamp(1_700_000_000)),
    ];
    let mut outgoing = message("t", "1");
    for (name, value) in values.clone() {
        outgoing.headers.set(name, value);
    }
    process.publish(outgoing).await;
    for round in 0..2 {
        let (incoming, settlement) = reader.next().await;
        for (name, value) in &values {
            assert_eq!(
                incoming.headers.get(name),
                Some(value),
                "{name} in round {round}"
            );
        }
        if round == 0 {
            let headers = incoming.headers.clone();
            let after = std::time::Duration::from_secs(1);
            settlement.retry(incoming, after, headers).await?;
        } else {
            settlement.done().await?;
        }
    }
    Ok(())
}
