//! The topology as data: compared with the cluster, exported to Kafka's own tools.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use interline::messaging::{MessageBroker, Subscription};
use interline_tests::harness::Case;
use rdkafka::admin::{AdminOptions, NewTopic, TopicReplication};
use tokio::process::Command;

use crate::support::{
    Error, Inbox, LIMIT, Outcome, Stage, close, message, publish, subscription, text,
};

pub fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "an_inspection_tells_what_is_missing_and_what_differs",
            inspected,
        ),
        Case::new(
            "an_inspection_tells_what_is_left_over_and_how_much_lies_there",
            left_over,
        ),
        Case::new("an_exported_topology_is_made_by_kafkas_own_tools", exported),
    ]
}

/// With two waits for retries, so that there is less to look at.
fn short(topic: &str) -> Subscription {
    let mut wanted = subscription(topic);
    wanted.ladder = [1, 5].map(Duration::from_secs).into();
    wanted
}

async fn inspected() -> Outcome {
    let stage = Stage::new().await?;
    let broker = stage
        .connected_with("one", |config| config.with("brokers.main.partitions", 4))
        .await?;
    let admin = stage.admin()?;
    let (source, letters) = (stage.named("a"), stage.named("a.billing.dlq"));
    let topics = [
        NewTopic::new(&source, 3, TopicReplication::Fixed(1)),
        NewTopic::new(&letters, 1, TopicReplication::Fixed(1)).set("cleanup.policy", "delete"),
    ];
    let options = AdminOptions::new().operation_timeout(Some(LIMIT));
    for made in admin.create_topics(&topics, &options).await? {
        made.map_err(|(name, code)| format!("{name}: {code}"))?;
    }
    let mut many = short("c");
    many.kafka.replication = Some(2);
    let wanted = [Arc::new(short("a")), Arc::new(many)];
    let topology = broker.topology(&wanted);
    let inspection = broker.inspect(&topology).await?;
    let names = |names: &[&str]| {
        names
            .iter()
            .map(|name| stage.named(name))
            .collect::<Vec<_>>()
    };
    let missing: Vec<_> = inspection
        .missing
        .iter()
        .map(|part| part.name.clone())
        .collect();
    assert_eq!(
        missing,
        names(&[
            "a.billing.retry.1s",
            "a.billing.retry.5s",
            "c",
            "c.billing.retry.1s",
            "c.billing.retry.5s",
            "c.billing.dlq",
            "billing",
        ])
    );
    let different: Vec<_> = inspection
        .different
        .iter()
        .map(|one| (one.part.name.clone(), one.what.as_str()))
        .collect();
    assert_eq!(
        different,
        [
            (source, "partitions are 3, declared are 4"),
            (letters, "`cleanup.policy` is delete, declared is compact"),
        ]
    );
    assert_eq!(inspection.leftover, []);
    // A look makes nothing.
    let again = broker.inspect(&topology).await?;
    assert_eq!(again.missing.len(), missing.len());

    // With everything made, only what differs is left.
    let fits = broker.topology(&[Arc::new(short("d"))]);
    broker.apply(&fits).await?;
    let inspection = broker.inspect(&fits).await?;
    assert!(inspection.is_clean(), "{inspection:?}");
    // One replica where two are declared.
    let mut many = short("d");
    many.kafka.replication = Some(2);
    let inspection = broker.inspect(&broker.topology(&[Arc::new(many)])).await?;
    assert_eq!(inspection.different.len(), 4, "{inspection:?}");
    assert_eq!(
        inspection.different[0].what,
        "replicas are 1, declared are 2"
    );
    close(&broker).await;
    Ok(())
}

async fn left_over() -> Outcome {
    let stage = Stage::new().await?;
    let broker = stage.connected("one").await?;
    // An earlier form of the service: another topic, and a longer ladder.
    let mut old = short("old");
    old.prefetch = 8;
    let mut kept = short("kept");
    kept.ladder = [1, 5, 30].map(Duration::from_secs).into();
    let mut inbox = Inbox::open(&broker, old).await?;
    let kept_inbox = Inbox::open(&broker, kept).await?;
    for body in ["bury", "retry", "done"] {
        publish(&broker, message("old", body)).await;
    }
    for _ in 0..3 {
        let delivery = inbox.next().await;
        let incoming = delivery.incoming;
        let headers = incoming.headers.clone();
        match text(&incoming).as_str() {
            "bury" => delivery.settlement.dead_letter(incoming, headers).await?,
            "retry" => {
                let wait = Duration::from_secs(5);
                delivery.settlement.retry(incoming, wait, headers).await?
            }
            _ => delivery.settlement.done().await?,
        };
    }
    drop((inbox, kept_inbox));
    close(&broker).await;

    let broker = stage.connected("two").await?;
    publish(&broker, message("old", "nobody's")).await;
    let topology = broker.topology(&[Arc::new(short("kept"))]);
    let inspection = broker.inspect(&topology).await?;
    assert!(
        inspection.missing.is_empty() && inspection.different.is_empty(),
        "{inspection:?}"
    );
    let mut found: Vec<_> = inspection
        .leftover
        .iter()
        .map(|one| (one.kind, one.name.clone(), one.depth))
        .collect();
    found.sort();
    let named = |name: &str| stage.named(name);
    let group = format!("{} in {}", named("billing"), named("old"));
    assert_eq!(
        found,
        [
            ("group", group, Some(1)),
            ("topic", named("kept.billing.retry.30s"), Some(0)),
            ("topic", named("old.billing.dlq"), Some(1)),
            ("topic", named("old.billing.retry.1s"), Some(0)),
            ("topic", named("old.billing.retry.5s"), Some(1)),
        ]
    );
    close(&broker).await;
    Ok(())
}

/// Where the server's libraries are, the tools among them.
fn libraries() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| {
        let home = std::env::var_os("HOME").unwrap_or_default();
        PathBuf::from(home).join(".cache")
    });
    cache.join("interline/servers/kafka-4.0.0/lib")
}

async fn exported() -> Outcome {
    let stage = Stage::new().await?;
    let broker = stage.connected("one").await?;
    let mut wanted = short("a");
    wanted.ladder = [Duration::from_secs(1)].into();
    wanted.kafka.replication = Some(1);
    let topology = broker.topology(&[Arc::new(wanted.clone())]);
    let export = broker.export(&topology).expect("it has a form");
    assert_eq!(export.extension, "sh");
    let place = tempfile::tempdir()?;
    // As the distribution has them.
    for (tool, class) in [
        ("kafka-topics.sh", "TopicCommand"),
        (
            "kafka-consumer-groups.sh",
            "consumer.group.ConsumerGroupCommand",
        ),
    ] {
        let script = format!(
            "#!/bin/sh\nexec java -Xmx128m -XX:TieredStopAtLevel=1 -cp '{}/*' \
             org.apache.kafka.tools.{class} \"$@\"\n",
            libraries().display()
        );
        std::fs::write(place.path().join(tool), script)?;
    }
    let file = place.path().join("topics.sh");
    std::fs::write(&file, &export.text)?;
    let path = std::env::var("PATH")?;
    for body in ["1", "2"] {
        // A second time it changes nothing.
        let made = Command::new("sh")
            .arg("-c")
            .arg("chmod +x \"$0\"/kafka-*.sh && exec sh \"$0/topics.sh\"")
            .arg(place.path())
            .env("PATH", format!("{}:{path}", place.path().display()))
            .env("BOOTSTRAP_SERVER", stage.url.trim_start_matches("kafka://"))
            .output()
            .await?;
        let told = String::from_utf8_lossy(&made.stderr).into_owned();
        made.status
            .success()
            .then_some(())
            .ok_or::<Error>(told.into())?;
        publish(&broker, message("a", body)).await;
    }
    let inspection = broker.inspect(&topology).await?;
    assert_eq!((inspection.missing, inspection.different), (vec![], vec![]));
    // The group begins where the first run found the topic, not where the service first ran.
    let mut inbox = Inbox::open(&broker, wanted).await?;
    assert_eq!(text(&inbox.take().await), "1");
    assert_eq!(text(&inbox.take().await), "2");
    close(&broker).await;
    Ok(())
}
