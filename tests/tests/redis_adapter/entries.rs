//! What stands in a stream: ours for others to read, and theirs for us.

use std::time::Duration;

use interline::HeaderValue;
use interline::message::headers::name;
use interline::messaging::{MessageBroker, Settled};
use redis::streams::StreamRangeReply;

use crate::cases;
use crate::support::{Inbox, Outcome, Stage, apply, message, subscription, text};

cases![
    a_foreign_entry_is_a_json_object_of_its_fields,
    a_foreign_payload_field_can_be_named,
    an_entry_is_readable_in_redis_cli,
];

async fn an_entry_is_readable_in_redis_cli() -> Outcome {
    let stage = Stage::new().await?;
    apply(&stage.broker, &subscription("t")).await?;
    let mut outgoing = message("t", "body");
    outgoing.key = Some("k".into());
    outgoing.headers.set("x-count", 7_i64);
    outgoing.headers.set("x-tenant", "acme");
    outgoing.ttl = Some(Duration::from_millis(60_000));
    stage.broker.publish(outgoing).await?;
    let range = stage.database.command(&["XRANGE", "t", "-", "+"]).await?;
    let range: StreamRangeReply = redis::from_redis_value(range)?;
    let entry = &range.ids[0];
    for (field, value) in [
        ("payload", "body"),
        ("h:content-type", "text/plain"),
        ("h:message-id", "t/body"),
        ("h:message-key", "k"),
        ("h:x-tenant", "acme"),
        ("h.int:x-count", "7"),
        ("ttl", "60000"),
    ] {
        assert_eq!(
            entry.get::<String>(field).as_deref(),
            Some(value),
            "{field}"
        );
    }
    assert_eq!(entry.map.len(), 7);
    stage.end().await
}

async fn a_foreign_entry_is_a_json_object_of_its_fields() -> Outcome {
    let stage = Stage::new().await?;
    let wanted = subscription("t");
    let mut inbox = Inbox::open(&stage.broker, wanted.clone()).await?;
    let add = [
        "XADD",
        "t",
        "*",
        "order",
        "7",
        "total",
        "100",
        "h:x-tenant",
        "acme",
    ];
    stage.database.command(&add).await?;
    let (incoming, settlement) = inbox.next().await;
    assert_eq!(text(&incoming), r#"{"order":"7","total":"100"}"#);
    let header = |name| incoming.headers.text(name).map(|text| text.into_owned());
    assert_eq!(
        header(name::CONTENT_TYPE).as_deref(),
        Some("application/json")
    );
    assert_eq!(header("x-tenant").as_deref(), Some("acme"));
    let id = incoming.id.clone();
    let headers = incoming.headers.clone();
    let after = Duration::from_secs(1);
    let settled = settlement.retry(incoming, after, headers).await?;
    assert_eq!(settled, Settled::Yes);
    // It is the same message when it comes back.
    let (again, settlement) = inbox.next().await;
    assert_eq!(
        (&again.id, text(&again).as_str()),
        (&id, r#"{"order":"7","total":"100"}"#)
    );
    settlement.done().await?;
    stage.end().await
}

async fn a_foreign_payload_field_can_be_named() -> Outcome {
    let stage = Stage::with(|config| config.with("brokers.main.payload_field", "data")).await?;
    let mut inbox = Inbox::open(&stage.broker, subscription("t")).await?;
    let add = [
        "XADD",
        "t",
        "*",
        "data",
        "body",
        "other",
        "ignored",
        "h.bool:x-flag",
        "true",
    ];
    stage.database.command(&add).await?;
    let (incoming, settlement) = inbox.next().await;
    assert_eq!(text(&incoming), "body");
    assert_eq!(
        incoming.headers.get("x-flag"),
        Some(&HeaderValue::Bool(true))
    );
    assert_eq!(incoming.headers.len(), 1);
    settlement.done().await?;
    stage.end().await
}
