//! Settings of the connection that only a server can show the effect of.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use interline::config::Config;
use interline::messaging::rabbitmq::RabbitMq;
use interline::messaging::{Connected, ConnectionState, MessageBroker};
use interline::observability::metrics::{InMemoryMetrics, RECONNECTS};
use interline_tests::harness::Case;
use interline_tests::servers;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::support::{
    Error, Inbox, LIMIT, Outcome, Stage, broker, eventually, message, subscription, until_repaired,
};

pub fn cases() -> Vec<Case> {
    vec![
        Case::new("the_virtual_host_may_stand_beside_the_url", virtual_host),
        Case::new("publishing_has_as_many_channels_as_it_was_given", channels),
        Case::new(
            "a_password_that_was_changed_is_read_at_the_next_connection",
            rotated_password,
        ),
        Case::new(
            "a_password_that_is_changed_too_late_is_waited_for",
            late_password,
        ),
    ]
}

/// As it is called: what a url has to encode stands there as a letter like any other.
async fn virtual_host() -> Outcome {
    let stage = Stage::new().await?;
    let name = format!("{}/eu %2f", stage.vhost.name);
    let management = stage.management().in_vhost(&name);
    management.create_vhost(&name).await?;
    let change = |config: Config| config.with("brokers.main.vhost", name.as_str());
    // In place of what the url says, whether that exists or not.
    let nowhere = servers::rabbitmq().await?.url_with_vhost("no-such-vhost");
    for (url, instance) in [(&stage.vhost.url, "two"), (&nowhere, "three")] {
        let there = broker(url, instance, &InMemoryMetrics::default(), change);
        assert_eq!(there.connect().await?, Connected::Yes, "{instance}");
        let mut inbox = Inbox::open(&there, subscription("a.b")).await?;
        there.publish(message("a.b", instance, "{}")).await?;
        assert_eq!(inbox.take().await.id.as_str(), instance);
        there.disconnect(Instant::now() + LIMIT).await;
    }
    let queues = management.queues().await?;
    let names: Vec<_> = queues.iter().map(|queue| queue.name.as_str()).collect();
    assert_eq!(names, ["billing.a.b", "billing.a.b.dlq"]);
    assert!(stage.management().queues().await?.is_empty());
    management.delete_vhost(&name).await?;
    stage.end().await
}

async fn channels() -> Outcome {
    for (set, expected) in [(None, 2), (Some(1), 1), (Some(5), 5)] {
        let stage = Stage::with(|config| match set {
            Some(size) => config.with("brokers.main.connection_pool_size", size),
            None => config,
        })
        .await?;
        let mut inbox = Inbox::open(&stage.broker, subscription("a.b")).await?;
        let publishes = (0..200).map(|n| stage.broker.publish(message("a.b", &n.to_string(), "")));
        try_join_all(publishes).await?;
        for _ in 0..200 {
            inbox.take().await;
        }
        // The management API lists a channel only after a while.
        let deadline = Instant::now() + LIMIT;
        loop {
            let seen = confirming(&stage).await?;
            let of_publisher = BTreeMap::from([("billing/one/publish".to_owned(), expected)]);
            if seen == of_publisher {
                break;
            }
            assert!(Instant::now() < deadline, "{set:?}: {seen:?}");
            sleep(Duration::from_millis(100)).await;
        }
        stage.end().await?;
    }
    Ok(())
}

/// How many channels take confirms, by the name of their connection.
async fn confirming(stage: &Stage) -> Result<BTreeMap<String, usize>, Error> {
    let vhost = &stage.vhost.name;
    let connections: Vec<Value> = stage.management().get(&["connections"]).await?;
    let channels: Vec<Value> = stage
        .management()
        .get(&["vhosts", vhost, "channels"])
        .await?;
    let mut counts = BTreeMap::new();
    for channel in channels.iter().filter(|one| one["confirm"] == true) {
        let of = &channel["connection_details"]["name"];
        let connection = connections.iter().find(|one| one["name"] == *of);
        let name = connection
            .and_then(|one| one["client_properties"]["connection_name"].as_str())
            .unwrap_or("not listed yet");
        *counts.entry(name.to_owned()).or_default() += 1;
    }
    Ok(counts)
}

/// A user whose password stands in a file.
struct Secret {
    stage: Stage,
    user: String,
    file: tempfile::NamedTempFile,
    broker: Arc<RabbitMq>,
}

impl Secret {
    async fn new() -> Result<Self, Error> {
        let stage = Stage::new().await?;
        let user = format!("billing-{}", stage.vhost.name);
        let file = tempfile::NamedTempFile::new()?;
        // An editor ends a file with the end of a line, which is not part of the secret.
        fs::write(file.path(), "hunter1\n")?;
        let management = stage.management();
        management.create_user(&user, "hunter1").await?;
        management.set_permissions(&user, ".*", ".*", ".*").await?;
        let path = file.path().to_str().ok_or("a path of text")?.to_owned();
        let broker = broker(&stage.vhost.url, "two", &stage.metrics, |config| {
            config
                .with("brokers.main.username", user.as_str())
                .with("brokers.main.password.file", path)
        });
        assert_eq!(broker.connect().await?, Connected::Yes);
        Ok(Self {
            stage,
            user,
            file,
            broker,
        })
    }

    /// Has the server end the connections of this user, and of nobody else.
    async fn cut(&self) -> Outcome {
        let management = self.stage.management();
        let deadline = Instant::now() + LIMIT;
        // The management API lists a connection only after a while.
        loop {
            let all: Vec<Value> = management.get(&["connections"]).await?;
            let ours: Vec<_> = all
                .iter()
                .filter(|one| one["user"] == self.user.as_str())
                .filter_map(|one| one["name"].as_str().map(str::to_owned))
                .collect();
            if ours.len() == 2 {
                return Ok(management.close(&ours).await?);
            }
            assert!(Instant::now() < deadline, "{ours:?}");
            sleep(Duration::from_millis(100)).await;
        }
    }

    async fn end(self) -> Outcome {
        self.broker.disconnect(Instant::now() + LIMIT).await;
        self.stage.management().delete_user(&self.user).await?;
        self.stage.end().await
    }
}

async fn rotated_password() -> Outcome {
    let secret = Secret::new().await?;
    let mut inbox = Inbox::open(&secret.broker, subscription("a.b")).await?;
    secret.broker.publish(message("a.b", "1", "{}")).await?;
    inbox.take().await;
    // Nobody is asked for a password while a connection lasts.
    let management = secret.stage.management();
    management.create_user(&secret.user, "hunter2").await?;
    secret.broker.publish(message("a.b", "2", "{}")).await?;
    inbox.take().await;
    fs::write(secret.file.path(), "hunter2\n")?;
    secret.cut().await?;
    let metrics = &secret.stage.metrics;
    let again = || metrics.sum(RECONNECTS, &[]) >= 1.0;
    eventually(again, || format!("{:?}", secret.broker.health_check())).await;
    secret.broker.publish(message("a.b", "3", "{}")).await?;
    assert_eq!(inbox.take().await.id.as_str(), "3");
    secret.end().await
}

async fn late_password() -> Outcome {
    let secret = Secret::new().await?;
    let management = secret.stage.management();
    management.create_user(&secret.user, "hunter2").await?;
    secret.cut().await?;
    let refused = || {
        let health = secret.broker.health_check();
        let told = health.last_error.unwrap_or_default();
        let named = format!("refused the credentials of user `{}`", secret.user);
        assert!(!told.contains("hunter"), "{told}");
        health.state == ConnectionState::Failed && told.contains(&named)
    };
    let shown = || format!("{:?}", secret.broker.health_check());
    eventually(refused, shown).await;
    fs::write(secret.file.path(), "hunter2\n")?;
    until_repaired(&secret.broker).await;
    let mut inbox = Inbox::open(&secret.broker, subscription("a.b")).await?;
    secret.broker.publish(message("a.b", "1", "{}")).await?;
    inbox.take().await;
    secret.end().await
}
