//! Topology as data: what is missing, what differs, what was left, and what `redis-cli` makes of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use interline::message::TopicPattern;
use interline::messaging::{Group, Inspection, MessageBroker, Start, Subscription, TopologyPart};
use interline::testing::ServerFixture;
use interline_tests::redis::Database;
use tokio::process::Command;
use tokio::time::Instant;

use crate::cases;
use crate::support::{
    Error, Inbox, LIMIT, Outcome, Stage, apply, broker, message, publish, subscription, text,
};

cases![
    an_export_makes_what_is_missing_and_skips_nothing,
    an_inspection_tells_what_is_missing_and_what_differs,
    what_is_no_longer_declared_is_told_with_its_depth,
    what_the_user_may_not_list_is_told,
];

fn each(topic: &'static str, instance: &str) -> Subscription {
    let group = Group::EachInstance {
        service: "billing".into(),
        instance: instance.into(),
        subscriber: "refresh".into(),
    };
    Subscription::new(TopicPattern::parse(topic).expect("a valid topic"), group)
}

/// What of a subscription is missing, in one line each.
fn missing(inspection: &Inspection) -> Vec<String> {
    let line = |part: &TopologyPart| format!("{} {}", part.kind, part.name);
    inspection.missing.iter().map(line).collect()
}

async fn an_inspection_tells_what_is_missing_and_what_differs() -> Outcome {
    let stage = Stage::new().await?;
    let broker = &stage.broker;
    let wanted: Vec<_> = [subscription("a"), subscription("b"), each("a", "one")]
        .map(Arc::new)
        .into();
    let topology = broker.topology(&wanted);
    stage.database.command(&["SET", "b", "text"]).await?;
    let inspection = broker.inspect(&topology).await?;
    assert_eq!(
        missing(&inspection),
        [
            "stream a",
            "group billing",
            "stream {a}:billing:retry",
            "stream {b}:billing:retry",
        ]
    );
    let different: Vec<_> = inspection
        .different
        .iter()
        .map(|one| (&*one.part.name, &*one.what))
        .collect();
    assert_eq!(different, [("b", "it is a string, declared is a stream")]);
    assert_eq!(inspection.leftover, []);
    assert_eq!(inspection.unseen.len(), 1, "{inspection:?}");
    // A look makes nothing.
    assert_eq!(stage.database.number(&["DBSIZE"]).await?, 1);

    stage.database.command(&["DEL", "b"]).await?;
    broker.apply(&topology).await?;
    let inspection = broker.inspect(&topology).await?;
    assert!(inspection.is_clean(), "{inspection:?}");
    // A stream without its group.
    let destroy = ["XGROUP", "DESTROY", "a", "billing"];
    stage.database.command(&destroy).await?;
    let inspection = broker.inspect(&topology).await?;
    assert_eq!(missing(&inspection), ["group billing"]);
    stage.end().await
}

async fn what_is_no_longer_declared_is_told_with_its_depth() -> Outcome {
    let stage = Stage::new().await?;
    // An earlier form of the service, and another service.
    let kept = subscription("kept");
    apply(&stage.broker, &kept).await?;
    let make = ["XGROUP", "CREATE", "kept", "shipping", "$", "MKSTREAM"];
    stage.database.command(&make).await?;
    // What was there before the group does not count for it.
    let old = ["XADD", "old", "*", "payload", "before"];
    stage.database.command(&old).await?;
    let mut inbox = Inbox::open(&stage.broker, subscription("old")).await?;
    for body in ["bury", "retry", "hold", "done"] {
        stage.broker.publish(message("old", body)).await?;
    }
    let mut held = Vec::new();
    for _ in 0..4 {
        let (incoming, settlement) = inbox.next().await;
        let headers = incoming.headers.clone();
        match text(&incoming).as_str() {
            "bury" => drop(settlement.dead_letter(incoming, headers).await?),
            "retry" => {
                let wait = Duration::from_secs(3_600);
                settlement.retry(incoming, wait, headers).await?;
            }
            "hold" => held.push(settlement),
            _ => drop(settlement.done().await?),
        }
    }
    // Of an instance that died: a group that goes on collecting.
    let dead = "billing.refresh.dead";
    let make = ["XGROUP", "CREATE", "kept", dead, "$", "MKSTREAM"];
    stage.database.command(&make).await?;
    let beat = ["ZADD", "{kept}:billing.refresh:instances", "1000", dead];
    stage.database.command(&beat).await?;
    let state = format!("{{kept}}:{dead}:state");
    let state = ["HSET", state.as_str(), "id", "0-0"];
    stage.database.command(&state).await?;
    stage.broker.disconnect(Instant::now() + LIMIT).await;
    drop((inbox, held));

    let broker = stage.another("two", |config| config).await?;
    for body in ["first", "second"] {
        broker.publish(message("old", body)).await?;
    }
    broker.publish(message("kept", "third")).await?;
    let topology = broker.topology(&[Arc::new(kept.clone())]);
    let inspection = broker.inspect(&topology).await?;
    assert_eq!(missing(&inspection), [] as [String; 0]);
    let told: Vec<_> = inspection
        .leftover
        .iter()
        .map(|one| (one.kind, &*one.name, one.depth))
        .collect();
    assert_eq!(
        told,
        [
            ("group", "billing.refresh.dead of kept", Some(1)),
            // One that was never settled, and two that nobody reads.
            ("group", "billing of old", Some(3)),
            ("sorted set", "{old}:billing:delayed", Some(1)),
            ("stream", "{old}:billing:dlq", Some(1)),
            ("stream", "{old}:billing:retry", Some(0)),
        ]
    );
    // Declared again, nothing is left; nor is what living instances have.
    let all = [kept, subscription("old"), each("kept", "two")].map(Arc::new);
    let inspection = broker.inspect(&broker.topology(&all)).await?;
    assert_eq!(inspection.leftover, []);

    // Where the server has lost count, the entries are counted: more than it looks at in one go.
    let set = ["XGROUP", "SETID", "old", "billing", "0-1"];
    stage.database.command(&set).await?;
    // A gap above the group's position.
    let first = ["XRANGE", "old", "-", "+", "COUNT", "2"];
    let first = stage.database.command(&first).await?;
    let first: redis::streams::StreamRangeReply = redis::from_redis_value(first)?;
    let delete = ["XDEL", "old", &first.ids[1].id];
    stage.database.command(&delete).await?;
    let more = (0..1_200).map(|number| message("old", &number.to_string()));
    let more = more.map(|outgoing| broker.publish(outgoing));
    for sent in futures_util::future::join_all(more).await {
        sent?;
    }
    let inspection = broker.inspect(&topology).await?;
    let depth = inspection
        .leftover
        .iter()
        .find(|one| one.name == "billing of old");
    // What is left of the first ones, all unread now, 1 200 more, and the one that is out.
    let length = u64::try_from(stage.database.number(&["XLEN", "old"]).await?)?;
    let groups = stage.database.command(&["XINFO", "GROUPS", "old"]).await?;
    let groups: Vec<HashMap<String, redis::Value>> = redis::from_redis_value(groups)?;
    assert_eq!(groups[0]["lag"], redis::Value::Nil);
    let pending: u64 = redis::from_redis_value(groups[0]["pending"].clone())?;
    assert!(length > 1_200 && pending == 1, "{length} {pending}");
    assert_eq!(depth.and_then(|one| one.depth), Some(length + pending));
    broker.disconnect(Instant::now() + LIMIT).await;
    stage.database.delete().await?;
    Ok(())
}

async fn what_the_user_may_not_list_is_told() -> Outcome {
    let server = ServerFixture::redis()
        .config_line("user limited on >secret ~* &* +@all -scan")
        .start()
        .await?;
    let database = Database::create_on(&server).await?;
    let url = database.url.replace("redis://", "redis://limited:secret@");
    let broker = broker(&url, "one", &Default::default(), |config| config);
    broker.connect().await?;
    let topology = broker.topology(&[Arc::new(subscription("t"))]);
    let inspection = broker.inspect(&topology).await?;
    assert_eq!(
        missing(&inspection),
        ["stream t", "group billing", "stream {t}:billing:retry"]
    );
    assert_eq!(
        inspection.unseen[0],
        "what is no longer declared: the user may not list keys (`+scan`)"
    );
    broker.disconnect(Instant::now() + LIMIT).await;
    Ok(())
}

/// Runs an exported script against the database.
async fn run(url: &str, script: &str) -> Result<(bool, String), Error> {
    let place = tempfile::tempdir()?;
    let file = place.path().join("groups.sh");
    std::fs::write(&file, script)?;
    let made = Command::new("sh")
        .arg(&file)
        .args(["-u", url])
        .output()
        .await?;
    let told = String::from_utf8_lossy(&made.stderr).into_owned();
    Ok((made.status.success(), told))
}

async fn an_export_makes_what_is_missing_and_skips_nothing() -> Outcome {
    let stage = Stage::new().await?;
    let mut early = subscription("early");
    early.start = Start::Earliest;
    let mut foreign = subscription("f");
    foreign.redis.stream = Some("it's {eu}".to_owned());
    let wanted: Vec<_> = [subscription("t"), early.clone(), foreign, each("t", "one")]
        .map(Arc::new)
        .into();
    let topology = stage.broker.topology(&wanted);
    let export = stage.broker.export(&topology).expect("it has a form");
    assert_eq!(export.extension, "sh");
    let comment = "# group billing.refresh.one: each instance makes its own";
    assert!(export.text.contains(comment), "{}", export.text);
    let before = ["XADD", "early", "*", "payload", "before"];
    stage.database.command(&before).await?;
    for _ in 0..2 {
        // A second time it changes nothing.
        let (done, told) = run(&stage.database.url, &export.text).await?;
        assert!(done, "{told}");
    }
    let inspection = stage.broker.inspect(&topology).await?;
    assert!(inspection.is_clean(), "{inspection:?}");
    let mut inbox = Inbox::open(&stage.broker, early).await?;
    assert_eq!(inbox.take().await, "before");

    // A group that was lost goes on where it was.
    let mut inbox = Inbox::open(&stage.broker, subscription("t")).await?;
    publish(&stage.broker, ["1".to_owned()]).await?;
    assert_eq!(inbox.take().await, "1");
    stage.broker.disconnect(Instant::now() + LIMIT).await;
    let destroy = ["XGROUP", "DESTROY", "t", "billing"];
    stage.database.command(&destroy).await?;
    let later = ["XADD", "t", "*", "payload", "later"];
    stage.database.command(&later).await?;
    let (done, told) = run(&stage.database.url, &export.text).await?;
    assert!(done, "{told}");
    let again = stage.another("two", |config| config).await?;
    let mut inbox = Inbox::open(&again, subscription("t")).await?;
    let mut came = inbox.take().await;
    if came == "1" {
        // How far the group was is noted now and then.
        came = inbox.take().await;
    }
    assert_eq!(came, "later");
    again.disconnect(Instant::now() + LIMIT).await;

    // What the server refuses is told, and the script fails.
    stage.database.command(&["FLUSHDB"]).await?;
    stage.database.command(&["SET", "t", "text"]).await?;
    let (done, told) = run(&stage.database.url, &export.text).await?;
    assert!(
        !done && told.contains("group billing of stream t"),
        "{told}"
    );
    assert!(told.contains("WRONGTYPE"), "{told}");
    stage.database.delete().await?;
    Ok(())
}
