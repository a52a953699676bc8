//! Connections that cannot be made, credentials, and what is said about them.

use std::time::Duration;

use interline::messaging::{
    BrokerErrorKind, Connected, ConnectionState, ConsumerState, DurabilityWeight, MessageBroker,
};
use interline::observability::metrics::CONNECTION_UP;
use interline::testing::ServerFixture;
use interline_tests::harness::Case;
use interline_tests::servers;
use tokio::time::Instant;

use crate::acl;
use crate::support::{
    Inbox, LIMIT, Outcome, Stage, close, eventually, message, publish, subscription, text,
};

pub fn cases() -> Vec<Case> {
    vec![
        Case::new("what_cannot_connect_says_so_without_the_password", refused),
        Case::new("a_cluster_that_comes_later_is_found", comes_later),
        Case::new("what_can_lose_messages_is_told", durability),
        Case::new(
            "a_cluster_where_one_server_may_acknowledge_is_told",
            one_acknowledges,
        ),
        Case::new(
            "what_may_not_be_read_any_more_is_told_until_it_may",
            revoked,
        ),
        Case::new("a_frozen_server_is_noticed_and_consuming_goes_on", frozen),
    ]
}

async fn refused() -> Outcome {
    let server = ServerFixture::kafka()
        .user("app", "open-sesame")
        .start()
        .await?;
    let place = server
        .password_url()
        .expect("it wants a password")
        .trim_start_matches("kafka://")
        .to_owned();
    for mechanism in ["plain", "scram-sha-256", "scram-sha-512"] {
        let wrong = Stage::at(format!("kafka://app:hunter2@{place}"));
        let broker = wrong.process("one", |config| config.with("brokers.main.sasl", mechanism));
        let error = broker.connect().await.expect_err("the password is wrong");
        assert_eq!(error.kind(), BrokerErrorKind::Authentication, "{error}");
        assert_eq!(
            error.to_string(),
            format!("broker `main`: {place} refused the credentials of user `app`")
        );
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        assert_eq!(broker.health_check().state, ConnectionState::Failed);
        let error = broker.publish(message("t", "1")).await.expect_err("no way");
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        close(&broker).await;

        let right = Stage::at(format!("kafka://app:open-sesame@{place}"));
        let broker = right
            .connected_with("one", |config| config.with("brokers.main.sasl", mechanism))
            .await?;
        let mut inbox = Inbox::open(&broker, subscription("t")).await?;
        publish(&broker, message("t", mechanism)).await;
        assert_eq!(text(&inbox.take().await), mechanism);
        close(&broker).await;
    }
    // Whoever prefers to wait for somebody to repair it can.
    let wrong = Stage::at(format!("kafka://app:hunter2@{place}"));
    let broker = wrong.process("two", |config| {
        config.with("brokers.main.on_terminal", "retry")
    });
    assert_eq!(broker.connect().await?, Connected::Retrying);
    close(&broker).await;
    Ok(())
}

async fn comes_later() -> Outcome {
    let (proxy, url) = servers::kafka_proxy().await?;
    proxy.refuse(true).await?;
    let stage = Stage::at(url);
    let broker = stage.process("one", |config| config);
    assert_eq!(broker.connect().await?, Connected::Retrying);
    let health = broker.health_check();
    assert_eq!(health.state, ConnectionState::Connecting);
    assert!(
        health
            .last_error
            .is_some_and(|error| error.contains("no server of 127.0.0.1")),
        "it says where"
    );
    // A consumer and a publish may be there before the cluster.
    let mut inbox = Inbox::begin(&broker, subscription("t")).await?;
    proxy.restore().await?;
    inbox.until(|state| *state == ConsumerState::Running).await;
    publish(&broker, message("t", "1")).await;
    assert_eq!(text(&inbox.take().await), "1");
    assert_eq!(stage.metrics.sum(CONNECTION_UP, &[]), 1.0);
    close(&broker).await;
    assert_eq!(stage.metrics.sum(CONNECTION_UP, &[]), 0.0);
    Ok(())
}

async fn durability() -> Outcome {
    let server = ServerFixture::kafka()
        .config_line("unclean.leader.election.enable=true")
        .start()
        .await?;
    let stage = Stage::at(server.url());
    let broker = stage.connected("one").await?;
    let inbox = Inbox::open(&broker, subscription("t")).await?;
    let wanted = [std::sync::Arc::new(subscription("t"))];
    let concerns = broker.durability(&wanted).await?;
    let told: Vec<String> = concerns.iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 2, "{told:#?}");
    assert!(
        told[0].contains("has one replica") && told[0].contains("`replication = 3`"),
        "{told:#?}"
    );
    assert!(
        told[1].contains("unclean.leader.election.enable=false"),
        "{told:#?}"
    );
    assert!(
        concerns
            .iter()
            .all(|concern| concern.weight == DurabilityWeight::Loss)
    );
    drop(inbox);
    close(&broker).await;
    Ok(())
}

/// Two replicas are no use where one of them is enough to acknowledge.
async fn one_acknowledges() -> Outcome {
    let cluster = ServerFixture::kafka()
        .config_line("min.insync.replicas=1")
        .start_cluster(2)
        .await?;
    let stage = Stage::at(cluster.url());
    let broker = stage.connected("one").await?;
    let inbox = Inbox::open(&broker, subscription("t")).await?;
    let wanted = [std::sync::Arc::new(subscription("t"))];
    let concerns = broker.durability(&wanted).await?;
    let told: Vec<String> = concerns.iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 1, "{told:#?}");
    assert!(
        told[0].contains("`min.insync.replicas` is 1")
            && told[0].contains("set `min.insync.replicas=2`"),
        "{told:#?}"
    );
    assert_eq!(concerns[0].weight, DurabilityWeight::Loss);
    drop(inbox);
    close(&broker).await;
    Ok(())
}

/// The library says once that a partition may not be read; it is told for as long as it is so.
async fn revoked() -> Outcome {
    let server = acl::server().await?;
    let here = Stage::at(server.url());
    let place = server.password_url().expect("it wants a password");
    let place = place.trim_start_matches("kafka://");
    let mut limited = Stage::at(format!("kafka://app:open-sesame@{place}"));
    limited.prefix.clone_from(&here.prefix);
    let other = here.connected("other").await?;
    let broker = limited
        .connected_with("one", |config| {
            config
                .with("brokers.main.partitions", 2)
                .with("brokers.main.sasl", "plain")
        })
        .await?;
    let mut inbox = Inbox::open(&broker, subscription("t")).await?;
    publish(&other, message("t", "1")).await;
    assert_eq!(text(&inbox.take().await), "1");
    let topic = here.named("t");
    acl::allow(&server, &topic, "User:app", acl::DESCRIBE).await?;
    let denied = |state: &ConsumerState| matches!(state, ConsumerState::Failed(_));
    inbox.until(denied).await;
    // Through many looks at the group.
    let end = Instant::now() + Duration::from_secs(2);
    while Instant::now() < end {
        let state = inbox.consumer.state();
        assert!(denied(&state), "{state:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    publish(&other, message("t", "2")).await;
    acl::allow(&server, &topic, "User:app", acl::READ).await?;
    assert_eq!(text(&inbox.take().await), "2");
    inbox.until(|state| *state == ConsumerState::Running).await;
    close(&broker).await;
    close(&other).await;
    Ok(())
}

async fn frozen() -> Outcome {
    let server = ServerFixture::kafka().start().await?;
    let stage = Stage::at(server.url());
    let broker = stage.connected("one").await?;
    let mut inbox = Inbox::open(&broker, subscription("t")).await?;
    publish(&broker, message("t", "1")).await;
    assert_eq!(text(&inbox.take().await), "1");
    // What is settled is committed after a moment.
    tokio::time::sleep(Duration::from_millis(300)).await;
    server.pause().await?;
    let state = || broker.health_check().state;
    eventually(
        || state() == ConnectionState::Connecting,
        || format!("{:?}", state()),
    )
    .await;
    server.resume().await?;
    eventually(
        || state() == ConnectionState::Ready,
        || format!("{:?}", state()),
    )
    .await;
    publish(&broker, message("t", "2")).await;
    let begun = Instant::now();
    assert_eq!(text(&inbox.take().await), "2");
    assert!(begun.elapsed() < LIMIT, "{:?}", begun.elapsed());
    inbox.expect_quiet(Duration::from_millis(500)).await;
    close(&broker).await;
    Ok(())
}
