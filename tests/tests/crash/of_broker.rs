//! The broker goes away under load, or takes something away.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use interline::MessageId;
use interline::config::{Config, Faults};
use interline::message::{Outgoing, TopicPattern};
use interline::messaging::rabbitmq::RabbitMq;
use interline::messaging::{BrokerContext, ConsumerState, Group, MessageBroker, Subscription};
use interline::testing::ServerFixture;
use interline_tests::harness::soak;
use interline_tests::servers::{self, Vhost};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use crate::ground::Kind;
use crate::scene::{CONNECTED, INPUT, PREFETCH, Scene};
use crate::trouble::{LIMIT, Outcome, Trouble, ensure, until};

/// How soon everything goes on, on a machine that is busy.
const BACK: Duration = Duration::from_secs(15);
/// How soon after RabbitMQ's port opens a message is handled again, on such a machine.
const BACK_ON_RABBITMQ: Duration = Duration::from_secs(10);

/// How a broker goes.
#[derive(Clone, Copy)]
enum Exit {
    Killed,
    Stopped,
}

/// kill -9 of the broker under load, with messages in a delay queue.
pub(crate) async fn killed(kind: Kind) -> Outcome {
    comes_back(kind, Exit::Killed, if soak() { 20 } else { 3 }).await
}

/// The broker is stopped and started under load, with messages in a delay queue.
pub(crate) async fn restarted(kind: Kind) -> Outcome {
    comes_back(kind, Exit::Stopped, if soak() { 20 } else { 1 }).await
}

async fn comes_back(kind: Kind, exit: Exit, times: usize) -> Outcome {
    let server = kind.own().await?;
    let mut scene = Scene::on(kind, &server).await?;
    scene.with_failures("4s");
    scene.set("LEDGER_DELAY_MS", 5);
    let outcome = async {
        let service = scene.start().await?;
        let sender = scene.sender().await?;
        let load = sender.start();
        let mut back = Vec::new();
        for _ in 0..times {
            scene.delayed().await?;
            scene.all_safe().await?;
            scene.moment(500).await;
            match exit {
                Exit::Killed => server.kill().await?,
                Exit::Stopped => server.terminate().await?,
            }
            server.restart_without_waiting().await?;
            let place = place(server.url())?;
            until("the broker's port opens", 2 * LIMIT, async || {
                Ok(TcpStream::connect(place).await.is_ok())
            })
            .await?;
            back.push(scene.progress().await?);
        }
        eprintln!("first message handled after the port opened: {back:.1?}");
        server.wait_ready(LIMIT).await?;
        let published = load.stop().await?;
        sender.close().await;
        let sums = scene.finish(service, &published).await?;
        let most = match kind {
            Kind::RabbitMq => BACK_ON_RABBITMQ,
            Kind::Kafka | Kind::Redis => BACK,
        };
        let late: Vec<_> = back.iter().filter(|took| **took > most).collect();
        ensure(late.is_empty(), || {
            format!("the first message was handled late: {late:?}")
        })?;
        scene.repeats_at_most(&sums, times)
    };
    let outcome = outcome.await;
    scene
        .told(outcome.map_err(|trouble| trouble.with(&server.logs())))
        .await
}

/// The server is frozen for longer than anybody waits for an answer, then goes on; and for a moment that nobody
/// notices.
pub(crate) async fn frozen(kind: Kind) -> Outcome {
    let server = kind.own().await?;
    let mut scene = Scene::on(kind, &server).await?;
    scene.set_broker(kind);
    scene.with_failures("4s");
    scene.set("LEDGER_DELAY_MS", 5);
    let times = if soak() { 10 } else { 2 };
    let (url, mut frozen) = (scene.ground.url().to_owned(), 0);
    let outcome = scene
        .survives(&url, times, async |scene| {
            let seconds = if frozen % 2 == 0 { 12 } else { 1 };
            frozen += 1;
            let lost = scene.logged(kind.lost());
            server.pause().await?;
            sleep(Duration::from_secs(seconds)).await;
            server.resume().await?;
            scene.progress().await?;
            let noticed = scene.logged(kind.lost()) > lost;
            ensure(noticed == (seconds > 1), || {
                format!("frozen for {seconds} s, noticed: {noticed}")
            })
        })
        .await;
    let outcome = outcome.map(drop);
    scene
        .told(outcome.map_err(|trouble| trouble.with(&server.logs())))
        .await
}

/// kill -9 of the broker while it holds messages for later: all come, none before its time.
pub(crate) async fn killed_with_scheduled() -> Outcome {
    const COUNT: u32 = 20;
    let server = ServerFixture::rabbitmq().start().await?;
    let scene = Scene::on(Kind::RabbitMq, &server).await?;
    let outcome = async {
        let config = Config::new().with("brokers.main.url", scene.ground.url());
        let mut faults = Faults::new();
        let context = BrokerContext::new("main", "later", "later-1");
        let broker = RabbitMq::read(&context, &config.section("brokers.main"), &mut faults)
            .ok_or_else(|| Trouble::new("the url is no good"))?;
        broker.connect().await?;
        let topic = TopicPattern::parse("later")?;
        let subscription = Arc::new(Subscription::new(topic, Group::Named("later".into())));
        let (sender, mut deliveries) = mpsc::channel(64);
        let consumer = broker.subscribe(subscription, sender).await?;
        let running = || async { Ok(consumer.state() == ConsumerState::Running) };
        until("the consumer runs", LIMIT, running).await?;
        let due = SystemTime::now() + Duration::from_secs(30);
        for number in 0..COUNT {
            let id = MessageId::parse(&format!("later-{number}"))
                .ok_or_else(|| Trouble::new("a bad id"))?;
            let message = Outgoing::new("later", id, Bytes::from(number.to_string()));
            broker.schedule(message, due).await?;
        }
        scene.all_safe().await?;
        server.kill().await?;
        server.restart_without_waiting().await?;
        let mut seen = BTreeSet::new();
        while seen.len() < COUNT as usize {
            let delivery = timeout(2 * LIMIT, deliveries.recv()).await?;
            let delivery = delivery.ok_or_else(|| Trouble::new("the consumer ended"))?;
            let now = SystemTime::now();
            ensure(now >= due, || {
                format!("one came {:?} early", due.duration_since(now))
            })?;
            seen.insert(delivery.incoming.id.to_string());
            delivery.settlement.done().await?;
        }
        broker.disconnect(Instant::now() + LIMIT).await;
        Ok(())
    };
    let outcome = outcome.await;
    scene
        .told(outcome.map_err(|trouble: Trouble| trouble.with(&server.logs())))
        .await
}

/// `host:port` of an address.
pub(crate) fn place(url: &str) -> Outcome<&str> {
    url.split_once("://")
        .and_then(|(_, rest)| rest.split('/').next())
        .and_then(|authority| authority.rsplit('@').next())
        .ok_or_else(|| Trouble::new("the broker's address has no place"))
}

/// Somebody deletes the queue of a live consumer: it is made again, and what comes then is handled.
pub(crate) async fn queue_deleted() -> Outcome {
    let server = servers::rabbitmq().await?;
    let scene = Scene::on(Kind::RabbitMq, server).await?;
    let outcome = async {
        let service = scene.start().await?;
        let sender = scene.sender().await?;
        let mut published = sender.send(100).await?;
        let outside = scene.ground.outside().await?;
        // What is in the queue would be gone with it, by the doing of whoever deletes it.
        until("the first messages are handled", LIMIT, async || {
            Ok(scene.ledger.entries()?.len() >= 100)
        })
        .await?;
        scene.ground.vhost()?.management.delete_queue(INPUT).await?;
        let took = until("the queue has its consumer again", BACK, async || {
            let counts = outside.counts(INPUT).await?;
            Ok(counts.is_some_and(|counts| counts.consumers > 0))
        })
        .await?;
        eprintln!("queue deleted: consuming again after {took:.1?}");
        let later = sender.send(100).await?;
        ensure(later.confirmed.len() == 100, || {
            format!("{} of 100 were confirmed", later.confirmed.len())
        })?;
        published.confirmed.extend(later.confirmed);
        sender.close().await;
        scene.finish(service, &published).await.map(drop)
    };
    let outcome = outcome.await;
    scene.told(outcome).await
}

/// The server closes the channel of a consumer that takes too long; it comes back, and the message
/// is handled all the same.
pub(crate) async fn consumer_timed_out() -> Outcome {
    let limit = Duration::from_secs(3);
    let server = ServerFixture::rabbitmq()
        .consumer_timeout(limit)
        .start()
        .await?;
    let mut scene = Scene::on(Kind::RabbitMq, &server).await?;
    // Longer than it takes to come back, so that somebody else handles the message first.
    scene.set("LEDGER_SLOW_ONCE_MS", 15_000);
    let outcome = async {
        let service = scene.start().await?;
        let sender = scene.sender().await?;
        let mut published = sender.send(20).await?;
        until("the server ends the consumer", LIMIT, async || {
            Ok(server
                .logs()
                .contains("delivery acknowledgement on channel"))
        })
        .await?;
        let took = until("the slow message is handled again", limit * 3, async || {
            Ok(scene.ledger.entries()?.len() >= 20)
        })
        .await?;
        eprintln!("consumer timed out: its message is handled after {took:.1?}");
        published.confirmed.extend(sender.send(20).await?.confirmed);
        sender.close().await;
        // The slow handler ends, and what it says is about a channel that is gone.
        until("the slow handler ends", LIMIT, async || {
            Ok(scene.ledger.entries()?.len() >= 41)
        })
        .await?;
        let sums = scene.finish(service, &published).await?;
        ensure(sums.duplicates == 1, || {
            format!("one is handled twice, not {}", sums.duplicates)
        })?;
        let lost = scene.logged("not consuming");
        ensure(lost == 1, || {
            format!(
                "the consumer was lost {lost} times: a settlement went to a channel that is not its own"
            )
        })
    };
    let outcome = outcome.await;
    scene
        .told(outcome.map_err(|trouble| trouble.with(&server.logs())))
        .await
}

/// The connections are closed while ten thousand messages are ready: after each return, the service
/// holds no more than its prefetch.
pub(crate) async fn connections_closed() -> Outcome {
    let server = servers::rabbitmq().await?;
    let mut scene = Scene::on(Kind::RabbitMq, server).await?;
    scene.set("LEDGER_DELAY_MS", 100);
    let outcome = async {
        let vhost = scene.ground.vhost()?;
        let management = &vhost.management;
        let service = scene.start().await?;
        let sender = scene.sender().await?;
        let published = sender.send(10_000).await?;
        sender.close().await;
        let mut most = 0;
        for _ in 0..3 {
            until("the connections are listed", LIMIT, async || {
                Ok(management.connections().await?.len() >= 2)
            })
            .await?;
            let made = service.said(CONNECTED);
            // The service closes the second connection when it loses the first; that one may not
            // answer any more.
            let closed = management.close_connections().await;
            if let Err(error) = closed {
                eprintln!("closing the connections: {error}");
            }
            let took = until("the service connects again", BACK, async || {
                Ok(service.said(CONNECTED) > made)
            })
            .await?;
            eprintln!("connections closed: connected again after {took:.1?}");
            let outside = scene.ground.outside().await?;
            scene.progress().await?;
            let before = scene.ledger.length();
            // The statistics of channels are a second old, those of the queue five.
            let end = Instant::now() + Duration::from_secs(6);
            until("the service handles messages", LIMIT, async || {
                most = most.max(held(vhost).await?);
                Ok(scene.ledger.length() > before && Instant::now() > end)
            })
            .await?;
            let left = outside.counts(INPUT).await?.unwrap_or_default().ready;
            ensure(left > 1_000, || format!("only {left} are ready"))?;
        }
        eprintln!("{most} unacknowledged at most");
        ensure(most > 0 && most <= PREFETCH as u64, || {
            format!("{most} unacknowledged, {PREFETCH} allowed")
        })?;
        service.kill().await?;
        // The rest at full speed.
        scene.set("LEDGER_DELAY_MS", 0);
        scene.set("INTERLINE__SUBSCRIBERS__RECORD__CONCURRENCY", 64);
        let service = scene.start().await?;
        scene.finish(service, &published).await.map(drop)
    };
    let outcome = outcome.await;
    scene.told(outcome).await
}

/// What is unacknowledged on all channels, and in the queue, whichever is more.
async fn held(vhost: &Vhost) -> Outcome<u64> {
    let management = &vhost.management;
    let channels: Vec<Value> = management.get(&["vhosts", &vhost.name, "channels"]).await?;
    let of_channels = channels
        .iter()
        .filter_map(|channel| channel["messages_unacknowledged"].as_u64())
        .sum::<u64>();
    let queue = management.queue(INPUT).await?;
    let of_queue = queue.and_then(|queue| queue.messages_unacknowledged);
    Ok(of_channels.max(of_queue.unwrap_or(0)))
}
