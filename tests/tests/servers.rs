//! The fixtures themselves: a server that is killed, frozen and restarted, and one whose test
//! process is killed.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use interline::testing::{FaultProxy, ServerError, ServerFixture};
use interline_tests::harness::{self, Case};
use interline_tests::management::{Management, Queue};
use interline_tests::servers::{self, Server, Vhost};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Connection, ConnectionProperties};
use serde_json::json;

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Set for the copy of this program that is killed while its server runs.
const VICTIM: &str = "INTERLINE_TEST_VICTIM";
const LIMIT: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    if std::env::var_os(VICTIM).is_some() {
        return be_killed();
    }
    harness::run([
        Case::new(
            "a_killed_server_comes_back_with_its_data",
            killed_and_restarted,
        )
        .needs(Server::RabbitMq),
        Case::new("a_frozen_server_answers_again", frozen_and_resumed).needs(Server::RabbitMq),
        Case::new("a_terminated_server_is_gone", terminated).needs(Server::RabbitMq),
        Case::new("a_wrong_configuration_shows_the_log", wrong_configuration)
            .needs(Server::RabbitMq),
        Case::new(
            "a_server_ends_with_its_killed_test_process",
            ends_with_its_process,
        )
        .needs(Server::RabbitMq),
        Case::new("the_management_api_does_what_it_is_told", management).needs(Server::RabbitMq),
        Case::new("a_proxy_stands_in_front_of_a_server", proxied).needs(Server::RabbitMq),
    ])
}

async fn killed_and_restarted() -> Outcome {
    let server = ServerFixture::rabbitmq().start().await?;
    let management = Management::of(&server)?;
    management
        .declare_queue("kept", json!({ "x-queue-type": "quorum" }))
        .await?;
    publish(server.url(), "kept", 3).await?;
    // RabbitMQ 3.10 writes the register of its quorum queues late: one declared in the second before
    // a kill -9 does not come back. Once the server has counted, the register is written.
    let has_all = |queue: &Queue| queue.messages_ready == Some(3);
    management.wait_for_queue("kept", has_all, LIMIT).await?;
    let (url, before) = (server.url().to_owned(), server.process_id());

    server.kill().await?;
    assert_eq!(server.process_id(), None);
    assert!(matches!(
        server.wait_ready(Duration::from_millis(10)).await,
        Err(ServerError::NotReady { .. })
    ));
    assert!(matches!(
        server.pause().await,
        Err(ServerError::Down { .. })
    ));

    server.restart().await?;
    assert_eq!(server.url(), url);
    assert_ne!(server.process_id(), before);
    let queue = management.wait_for_queue("kept", has_all, LIMIT).await?;
    assert_eq!(queue.kind, "quorum");
    assert!(
        server.logs().contains("Server startup complete"),
        "{}",
        server.logs()
    );
    Ok(())
}

async fn frozen_and_resumed() -> Outcome {
    let server = ServerFixture::rabbitmq().start().await?;
    server.pause().await?;
    let frozen = server.wait_ready(Duration::from_millis(10)).await;
    assert!(
        matches!(frozen, Err(ServerError::NotReady { .. })),
        "{frozen:?}"
    );
    server.resume().await?;
    server.wait_ready(LIMIT).await?;
    Ok(())
}

async fn terminated() -> Outcome {
    let server = ServerFixture::rabbitmq().start().await?;
    let logs = server
        .log_directory()
        .ok_or("our own server has logs")?
        .to_owned();
    server.terminate().await?;
    assert_eq!(server.process_id(), None);
    assert!(
        server.logs().contains("SIGTERM received"),
        "{}",
        server.logs()
    );
    drop(server);
    assert!(!logs.exists());
    Ok(())
}

async fn wrong_configuration() -> Outcome {
    let refused = ServerFixture::rabbitmq()
        .config_line("no_such_key = 1")
        .start()
        .await;
    let Err(ServerError::Exited { log, .. }) = refused else {
        return Err(format!("{refused:?}").into());
    };
    assert!(log.contains("no_such_key"), "{log}");
    Ok(())
}

fn be_killed() -> ExitCode {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime can be made");
    let server = runtime
        .block_on(ServerFixture::rabbitmq().start())
        .expect("the server starts");
    let logs = server
        .log_directory()
        .expect("the server is ours")
        .display()
        .to_string();
    println!("{} {logs}", server.process_id().expect("the server runs"));
    std::io::stdin()
        .read_to_end(&mut Vec::new())
        .expect("standard input is a pipe");
    ExitCode::FAILURE
}

async fn ends_with_its_process() -> Outcome {
    let mut victim = Command::new(std::env::current_exe()?)
        .env(VICTIM, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(victim.stdout.take().ok_or("piped")?).read_line(&mut line)?;
    let (id, logs) = line.trim().split_once(' ').ok_or("an id and a directory")?;
    let directory = Path::new(logs)
        .parent()
        .ok_or("logs lie in the directory")?;
    let mark = format!("INTERLINE_TEST_SERVER_DIRECTORY={}", directory.display());
    assert!(Path::new("/proc").join(id).exists());
    assert!(
        processes_marked(&mark) >= 2,
        "the server and its name server"
    );

    victim.kill()?;
    victim.wait()?;

    let end = Instant::now() + LIMIT;
    while directory.exists() || processes_marked(&mark) > 0 {
        assert!(
            Instant::now() < end,
            "{id} or {} is left",
            directory.display()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

fn processes_marked(mark: &str) -> usize {
    let Ok(processes) = fs::read_dir("/proc") else {
        return 0;
    };
    processes
        .flatten()
        .filter_map(|process| fs::read(process.path().join("environ")).ok())
        .filter(|environment| {
            environment
                .split(|&byte| byte == 0)
                .any(|pair| pair == mark.as_bytes())
        })
        .count()
}

async fn management() -> Outcome {
    let server = servers::rabbitmq().await?;
    let vhost = Vhost::create_on(server).await?;
    let management = &vhost.management;

    management
        .declare_queue("letters", json!({ "x-max-length": 100 }))
        .await?;
    management.declare_exchange("post", "topic").await?;
    management.bind_queue("post", "letters", "letter.*").await?;
    let bindings = management.bindings("letters").await?;
    assert!(
        bindings
            .iter()
            .any(|binding| binding.source == "post" && binding.routing_key == "letter.*"),
        "{bindings:?}"
    );
    assert!(
        management
            .exchanges()
            .await?
            .iter()
            .any(|exchange| exchange.kind == "topic")
    );
    management
        .set_policy("short", "^letters$", json!({ "message-ttl": 60000 }))
        .await?;
    let queue = management
        .wait_for_queue(
            "letters",
            |queue| queue.policy.as_deref() == Some("short"),
            LIMIT,
        )
        .await?;
    assert_eq!(
        (&*queue.kind, &queue.arguments["x-max-length"]),
        ("classic", &json!(100))
    );

    publish(&vhost.url, "letters", 5).await?;
    management
        .wait_for_queue("letters", |queue| queue.messages() == Some(5), LIMIT)
        .await?;
    management.purge_queue("letters").await?;
    management
        .wait_for_queue("letters", |queue| queue.messages() == Some(0), LIMIT)
        .await?;

    let user = format!("{}-reader", vhost.name);
    management.create_user(&user, "secret").await?;
    management.set_permissions(&user, "", "", ".*").await?;
    let url = vhost.url.replace("guest:guest", &format!("{user}:secret"));
    let connection = Connection::connect(&url, ConnectionProperties::default()).await?;
    let end = Instant::now() + LIMIT;
    while management.close_connections().await? == 0 {
        assert!(Instant::now() < end, "the connection is never listed");
    }
    while connection.status().connected() {
        assert!(Instant::now() < end, "the connection is never closed");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    management.delete_user(&user).await?;

    management.delete_queue("letters").await?;
    assert!(management.queue("letters").await?.is_none());
    assert_eq!(management.queues().await?.len(), 0);
    vhost.delete().await?;
    Ok(())
}

async fn proxied() -> Outcome {
    let server = servers::rabbitmq().await?;
    let vhost = Vhost::create_on(server).await?;
    vhost.management.declare_queue("letters", json!({})).await?;
    let place = |url: &str| {
        url.split('@')
            .nth(1)
            .and_then(|rest| rest.split('/').next())
            .map(str::to_owned)
    };
    let place = place(&vhost.url).ok_or("the address has a host")?;
    let proxy = FaultProxy::start(&place).await?;
    let url = vhost.url.replace(&place, &proxy.address().to_string());

    let connection = Connection::connect(&url, ConnectionProperties::default()).await?;
    assert_eq!(proxy.connections(), 1);
    assert_eq!(proxy.reset_all().await, 1);
    let end = Instant::now() + LIMIT;
    while connection.status().connected() {
        assert!(Instant::now() < end, "the client never sees the reset");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    publish(&url, "letters", 1).await?;
    vhost.delete().await?;
    Ok(())
}

/// Publishes `count` messages to a queue and waits for their confirms.
async fn publish(url: &str, queue: &str, count: usize) -> Outcome {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await?;
    for _ in 0..count {
        let properties = BasicProperties::default().with_delivery_mode(2);
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let confirm = channel
            .basic_publish("".into(), queue.into(), options, b"hello", properties)
            .await?;
        assert!(confirm.await?.is_ack());
    }
    connection.close(0, "done".into()).await?;
    Ok(())
}
