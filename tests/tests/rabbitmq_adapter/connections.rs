//! Connections that cannot be made, and what is said about them.

use interline::messaging::{BrokerErrorKind, Connected, ConnectionState, MessageBroker};
use interline::observability::metrics::{CONNECTION_UP, InMemoryMetrics};
use interline::testing::FaultProxy;
use interline_tests::harness::Case;
use std::time::Duration;
use tokio::time::Instant;

use crate::support::{Inbox, LIMIT, Outcome, Stage, broker, message, subscription, until_state};

pub fn cases() -> Vec<Case> {
    vec![
        Case::new("what_cannot_connect_says_so_without_the_password", refused),
        Case::new("a_server_that_comes_later_is_found", comes_later),
        Case::new("both_connections_are_named", named),
    ]
}

async fn refused() -> Outcome {
    let stage = Stage::new().await?;
    let metrics = InMemoryMetrics::default();
    let address = stage
        .vhost
        .url
        .split('@')
        .nth(1)
        .expect("an address")
        .to_owned();
    let host = address.split('/').next().expect("a host").to_owned();
    let cases = [
        (
            format!("amqp://guest:hunter2@{address}"),
            BrokerErrorKind::Authentication,
            format!("broker `main`: {host} refused the credentials of user `guest`"),
        ),
        (
            format!("amqp://guest:guest@{host}/no-such-vhost"),
            BrokerErrorKind::NotFound,
            format!("broker `main`: {host} has no virtual host `no-such-vhost`"),
        ),
    ];
    for (url, kind, text) in cases {
        let one = broker(&url, "one", &metrics, |config| config);
        let error = one.connect().await.unwrap_err();
        assert_eq!((error.kind(), error.to_string()), (kind, text.clone()));
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        let health = one.health_check();
        assert_eq!(health.state, ConnectionState::Failed);
        assert_eq!(health.last_error, Some(text));
        let error = one.publish(message("a.b", "1", "{}")).await.unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
        one.disconnect(Instant::now() + LIMIT).await;
        // Whoever prefers to wait for somebody to repair it can.
        let two = broker(&url, "two", &metrics, |config| {
            config.with("brokers.main.on_terminal", "retry")
        });
        assert_eq!(two.connect().await?, Connected::Retrying);
        two.disconnect(Instant::now() + LIMIT).await;
    }
    let closed = std::net::TcpListener::bind("127.0.0.1:0")?
        .local_addr()?
        .port();
    let url = format!("amqp://guest:hunter2@127.0.0.1:{closed}");
    let one = broker(&url, "one", &metrics, |config| config);
    assert_eq!(one.connect().await?, Connected::Retrying);
    let health = one.health_check();
    assert_eq!(health.state, ConnectionState::Connecting);
    assert_eq!(
        health.last_error,
        Some(format!(
            "broker `main`: nothing listens at 127.0.0.1:{closed} (connection refused)"
        ))
    );
    one.disconnect(Instant::now() + LIMIT).await;
    assert_eq!(one.health_check().state, ConnectionState::Closed);
    stage.end().await
}

async fn comes_later() -> Outcome {
    let stage = Stage::new().await?;
    let proxy = FaultProxy::start(
        stage
            .vhost
            .url
            .split('@')
            .nth(1)
            .expect("an address")
            .split('/')
            .next()
            .expect("a host"),
    )
    .await?;
    let url = stage.vhost.url.replace(
        stage
            .vhost
            .url
            .split('@')
            .nth(1)
            .and_then(|rest| rest.split('/').next())
            .expect("a host"),
        &proxy.address().to_string(),
    );
    proxy.refuse(true).await?;
    let metrics = InMemoryMetrics::default();
    let late = broker(&url, "two", &metrics, |config| config);
    assert_eq!(late.connect().await?, Connected::Retrying);
    // A consumer and a publish may be there before the connection.
    let mut inbox = Inbox::begin(&late, subscription("a.b")).await?;
    proxy.restore().await?;
    inbox
        .until(|state| *state == interline::messaging::ConsumerState::Running)
        .await;
    late.publish(message("a.b", "1", "{}")).await?;
    inbox.take().await;
    assert_eq!(metrics.sum(CONNECTION_UP, &[]), 1.0);
    until_state(&late, ConnectionState::Ready).await;
    late.disconnect(Instant::now() + LIMIT).await;
    assert_eq!(metrics.sum(CONNECTION_UP, &[]), 0.0);
    stage.end().await
}

async fn named() -> Outcome {
    let stage = Stage::new().await?;
    let deadline = Instant::now() + LIMIT;
    loop {
        let all: Vec<serde_json::Value> = stage.management().get(&["connections"]).await?;
        let mut names: Vec<_> = all
            .iter()
            .filter(|connection| connection["vhost"] == stage.vhost.name.as_str())
            .filter_map(|connection| connection["client_properties"]["connection_name"].as_str())
            .collect();
        names.sort_unstable();
        if names == ["billing/one/consume", "billing/one/publish"] {
            return stage.end().await;
        }
        assert!(Instant::now() < deadline, "{names:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
