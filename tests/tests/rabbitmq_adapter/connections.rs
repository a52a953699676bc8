//! Connections that cannot be made, and what is said about them.

use interline::messaging::{BrokerErrorKind, Connected, ConnectionState, MessageBroker};
use interline::observability::metrics::{CONNECTION_UP, InMemoryMetrics, RECONNECTS};
use interline::testing::FaultProxy;
use interline_tests::harness::Case;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep};

use crate::support::{
    Inbox, LIMIT, Outcome, Stage, broker, eventually, message, subscription, until_state,
};

pub fn cases() -> Vec<Case> {
    vec![
        Case::new("what_cannot_connect_says_so_without_the_password", refused),
        Case::new("a_server_that_comes_later_is_found", comes_later),
        Case::new("any_of_several_servers_will_do", any_of_several),
        Case::new("both_connections_are_named", named),
        Case::new("a_server_that_is_too_old_is_refused", too_old),
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

/// The nodes of a cluster in one url, here several ways to one server.
async fn any_of_several() -> Outcome {
    let stage = Stage::new().await?;
    let (user, rest) = stage.vhost.url.split_once('@').expect("a user");
    let (host, vhost) = rest.split_once('/').expect("a virtual host");
    let ways = [
        FaultProxy::start(host).await?,
        FaultProxy::start(host).await?,
    ];
    let closed = std::net::TcpListener::bind("127.0.0.1:0")?
        .local_addr()?
        .to_string();
    let servers = format!("{closed},{},{}", ways[0].address(), ways[1].address());
    let metrics = InMemoryMetrics::default();
    let url = format!("{user}@{servers}/{vhost}");
    let several = broker(&url, "two", &metrics, |config| config);
    assert_eq!(several.connect().await?, Connected::Yes);
    let mut inbox = Inbox::open(&several, subscription("a.b")).await?;
    for round in 0..4 {
        // If it is this one that is used, the other one has to do.
        let lost = &ways[round % 2];
        lost.refuse(true).await?;
        lost.reset_all().await;
        let id = round.to_string();
        let begun = Instant::now();
        while let Err(error) = several.publish(message("a.b", &id, "{}")).await {
            assert!(begun.elapsed() < LIMIT, "{error}");
            sleep(Duration::from_millis(10)).await;
        }
        // One of an earlier round may come again with it.
        while inbox.next().await.incoming.id.as_str() != id {}
        lost.restore().await?;
    }
    assert!(metrics.sum(RECONNECTS, &[]) >= 1.0);
    for way in &ways {
        way.refuse(true).await?;
        way.reset_all().await;
    }
    until_state(&several, ConnectionState::Connecting).await;
    let told = || several.health_check().last_error.unwrap_or_default();
    let tells_all = || servers.split(',').all(|server| told().contains(server));
    eventually(tells_all, told).await;
    ways[1].restore().await?;
    until_state(&several, ConnectionState::Ready).await;
    several.disconnect(Instant::now() + LIMIT).await;
    // What one server says of a user holds for all, also where others do not answer.
    let url = format!("amqp://guest:wrong@{servers}/{vhost}");
    let refused = broker(&url, "three", &metrics, |config| config);
    let error = refused.connect().await.unwrap_err();
    assert_eq!(error.kind(), BrokerErrorKind::Authentication, "{error}");
    let text = error.to_string();
    assert!(
        text.contains(&closed) && text.contains("refused the credentials of user `guest`"),
        "{text}"
    );
    refused.disconnect(Instant::now() + LIMIT).await;
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
        sleep(Duration::from_millis(100)).await;
    }
}

/// No server this old can be had, so somebody introduces himself as one.
async fn too_old() -> Outcome {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let place = listener.local_addr()?;
    let old = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await?;
        let mut header = [0; 8];
        stream.read_exact(&mut header).await?;
        assert_eq!(&header, b"AMQP\x00\x00\x09\x01");
        stream
            .write_all(&introduction("RabbitMQ", "3.9.13"))
            .await?;
        // Nothing more is said to it.
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await?;
        assert_eq!(rest, b"");
        std::io::Result::Ok(())
    });
    let url = format!("amqp://guest:hunter2@{place}");
    let one = broker(&url, "one", &InMemoryMetrics::default(), |config| config);
    let error = one.connect().await.unwrap_err();
    assert_eq!(error.kind(), BrokerErrorKind::Unsupported);
    assert_eq!(
        error.to_string(),
        format!(
            "broker `main`: {place} is RabbitMQ 3.9.13, and Interline needs RabbitMQ 3.10 or newer: \
             the quorum queues of older ones can lose retries and dead letters on their way"
        )
    );
    one.disconnect(Instant::now() + LIMIT).await;
    old.await??;
    Ok(())
}

/// The frame of `Connection.Start`.
fn introduction(product: &str, version: &str) -> Vec<u8> {
    let long = |text: &str| {
        let length = u32::try_from(text.len()).expect("a short text");
        [&length.to_be_bytes(), text.as_bytes()].concat()
    };
    let entry = |name: &str, value: &str| {
        let length = u8::try_from(name.len()).expect("a short name");
        [&[length], name.as_bytes(), b"S", &long(value)].concat()
    };
    let table = [entry("product", product), entry("version", version)].concat();
    let size = |bytes: &[u8]| {
        u32::try_from(bytes.len())
            .expect("a small frame")
            .to_be_bytes()
    };
    let payload = [
        &[0, 10, 0, 10, 0, 9][..],
        &size(&table),
        &table,
        &long("PLAIN"),
        &long("en_US"),
    ]
    .concat();
    [&[1, 0, 0][..], &size(&payload), &payload, &[0xCE]].concat()
}
