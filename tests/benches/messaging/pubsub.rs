//! Redis Pub/Sub, and the loops that a user of `redis` would write.
//!
//! The server keeps nothing that could be consumed later. So what Interline publishes is recorded
//! once, and then published again by the server itself to each row's own channel, as fast as the row
//! takes it: nothing may be dropped, and every message is to have had exactly one listener.

use std::sync::{Arc, Mutex};

use futures_util::StreamExt;
use futures_util::future::{BoxFuture, join};
use interline::config::Config;
use interline_tests::redis::Database;
use interline_tests::servers;
use redis::aio::PubSubStream;
use redis::{Client, Cmd, ConnectionAddr, Script, Value};
use tokio::io::{self, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Duration, Instant, sleep, timeout};

use crate::order::{Order, Probe};
use crate::sdk::{Handler, Publishes, VARIANTS};
use crate::transport::{Load, Open, Place, Publishing, Transport};
use crate::{LIMIT, Result, on_redis, wire};

/// What the SDK publishes to.
const CHANNEL: &str = "bench.orders";
/// The list of what was recorded.
const RECORD: &str = "record";
/// What the SDK handles at once.
const CONCURRENCY: usize = 16;
/// How many messages are under way at most: half of what the SDK keeps before it drops.
const AHEAD: u64 = 500;
/// How many the server publishes at once.
const TOGETHER: u64 = 100;
/// How many are recorded at once.
const RECORDED_TOGETHER: usize = 100;
/// How often the server is asked how far it is.
const ASK: Duration = Duration::from_millis(20);
/// Publishes a part of the list to a channel; how many listeners there were in sum.
const FEED: &str = "
local heard = 0
for _, message in ipairs(redis.call('LRANGE', KEYS[1], ARGV[2], ARGV[3])) do
    heard = heard + redis.call('PUBLISH', ARGV[1], message)
end
return heard";

/// A channel for each row.
pub(crate) struct PubSub {
    database: Database,
    title: String,
    /// Who listens to what is published, and how often something had been before.
    listener: Mutex<Option<(AbortHandle, u64)>>,
}

impl PubSub {
    pub(crate) async fn open() -> Result<Self> {
        let database = Database::create_on(servers::redis().await?).await?;
        let title = format!("Redis Pub/Sub, {}", on_redis::server(&database).await?);
        Ok(Self {
            database,
            title,
            listener: Mutex::default(),
        })
    }

    async fn listen(&self, channel: &str) -> Result<PubSubStream> {
        let client = Client::open(self.database.url.as_str())?;
        let (mut sink, heard) = client.get_async_pubsub().await?.split();
        sink.subscribe(channel).await?;
        Ok(heard)
    }

    /// How many PUBLISH commands the server has carried out.
    async fn published(&self) -> Result<u64> {
        let info = self.database.command(&["INFO", "commandstats"]).await?;
        let info: String = redis::from_redis_value(info)?;
        let line = info
            .lines()
            .find_map(|line| line.strip_prefix("cmdstat_publish:calls="));
        let calls = line.and_then(|rest| rest.split(',').next());
        Ok(calls.map_or(Ok(0), str::parse)?)
    }

    /// Waits until a channel has so many listeners.
    async fn listened(&self, channel: &str, listeners: i64) -> Result<()> {
        let asked = ["PUBSUB", "NUMSUB", channel];
        let end = Instant::now() + LIMIT;
        loop {
            let answer = self.database.command(&asked).await?;
            let (_, now): (String, i64) = redis::from_redis_value(answer)?;
            if now == listeners {
                return Ok(());
            }
            if Instant::now() > end {
                let text = format!("`{channel}` has {now} listeners, not {listeners}");
                return Err(text.into());
            }
            sleep(ASK).await;
        }
    }

    /// Waits until that was published to the one listener.
    async fn counted(&self, count: u64) -> Result<()> {
        let before = {
            let listener = self.listener.lock().expect("nobody panics with it");
            listener.as_ref().map_or(0, |(_, before)| *before)
        };
        let end = Instant::now() + LIMIT;
        loop {
            let now = self.published().await? - before;
            if now == count {
                return Ok(());
            }
            if Instant::now() > end {
                return Err(format!("the server published {now} messages, not {count}").into());
            }
            sleep(ASK).await;
        }
    }
}

impl Transport for PubSub {
    fn title(&self) -> String {
        self.title.clone()
    }

    fn consumes(&self) -> &'static str {
        "consume"
    }

    fn times(&self, _: usize) -> u64 {
        5
    }

    fn config(&self) -> Config {
        Config::new()
            .with("brokers.main.kind", "redis-pubsub")
            .with("brokers.main.url", self.database.url.as_str())
    }

    fn config_of(&self, group: &str) -> Config {
        self.config().with("subscribers.hear.redis.stream", group)
    }

    fn place(&self, group: &str) -> Place {
        Place {
            url: self.database.url.clone(),
            source: group.to_owned(),
            group: group.to_owned(),
        }
    }

    fn handler(&self) -> Handler {
        Handler::AtMostOnce
    }

    fn raw_consumers(&self) -> &'static [&'static str] {
        &[
            "redis, in the task that reads",
            "redis, 16 at once, a task each",
        ]
    }

    fn consume_raw(
        &self,
        which: usize,
        group: &str,
        probe: Arc<Probe>,
    ) -> BoxFuture<'_, Result<Open>> {
        let group = group.to_owned();
        Box::pin(async move {
            let heard = self.listen(&group).await?;
            match which {
                0 => in_the_reading_task(heard, &probe).await?,
                _ => a_task_each(heard, &probe).await?,
            }
            Ok(Box::new(()) as Open)
        })
    }

    fn raw_publishers(&self) -> &'static [&'static str] {
        &[
            "redis, the payload alone",
            "redis, the lines that Interline writes",
        ]
    }

    fn publish_raw(&self, which: usize, load: Load) -> BoxFuture<'_, Result<Publishing>> {
        Box::pin(async move {
            let connection = self.database.connection().await?;
            let command = if which == 0 { bare } else { whole };
            let publishing = on_redis::pipelined(connection, load, command, is_heard);
            Ok(Box::pin(publishing) as Publishing)
        })
    }

    /// Somebody listens, and throws away what comes.
    fn declare<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let listening = throw_away(&self.database.url).await?;
            self.listened(CHANNEL, 1).await?;
            let before = self.published().await?;
            let mut listener = self.listener.lock().expect("nobody panics with it");
            *listener = Some((listening, before));
            Ok(())
        })
    }

    fn fill<'a>(&'a self, _: &'a [String], load: Load) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let mut heard = self.listen(CHANNEL).await?;
            let mut connection = self.database.connection().await?;
            let recording = async {
                let (mut recorded, mut heard) = (0, (&mut heard).ready_chunks(RECORDED_TOGETHER));
                while recorded < load.count {
                    let messages = heard.next().await.ok_or("the listener ended")?;
                    let mut push = redis::cmd("RPUSH");
                    push.arg(RECORD);
                    for message in &messages {
                        push.arg(message.get_payload_bytes());
                    }
                    recorded = push.query_async(&mut connection).await?;
                }
                Ok::<_, crate::Error>(())
            };
            let filler = Publishes::connect(self.config(), VARIANTS[1]).await?;
            let (recorded, filled) = join(timeout(LIMIT, recording), filler.publish(load)).await;
            filler.close().await;
            filled?;
            recorded?
        })
    }

    fn feed<'a>(&'a self, group: &'a str, probe: Arc<Probe>) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.listened(group, 1).await?;
            let mut connection = self.database.connection().await?;
            let script = Script::new(FEED);
            let mut fed = 0;
            while fed < probe.count() {
                probe
                    .at_least((fed + TOGETHER).saturating_sub(AHEAD), LIMIT)
                    .await?;
                let next = (fed + TOGETHER).min(probe.count());
                let mut script = script.key(RECORD);
                script.arg(group).arg(fed).arg(next - 1);
                let heard: u64 = script.invoke_async(&mut connection).await?;
                if heard != next - fed {
                    let text = format!("{heard} listeners of {} messages", next - fed);
                    return Err(text.into());
                }
                fed = next;
            }
            Ok(())
        })
    }

    fn holds<'a>(&'a self, group: &'a str, ready: u64) -> BoxFuture<'a, Result<()>> {
        let publishes = self.listener.lock().expect("nobody panics with it");
        if publishes.is_some() {
            Box::pin(self.counted(ready))
        } else {
            // What was heard was counted by whoever fed it.
            Box::pin(self.listened(group, 0))
        }
    }

    fn purge<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let now = self.published().await?;
            let mut listener = self.listener.lock().expect("nobody panics with it");
            if let Some((_, before)) = &mut *listener {
                *before = now;
            }
            Ok(())
        })
    }

    fn remove<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let listener = self.listener.lock().expect("nobody panics with it").take();
            if let Some((listening, _)) = listener {
                listening.abort();
            }
            self.database.command(&["DEL", RECORD]).await?;
            self.listened(CHANNEL, 0).await
        })
    }

    fn end(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move { Ok(self.database.delete().await?) })
    }
}

/// Listens to what is published without looking at it, so that it costs whoever publishes little.
async fn throw_away(url: &str) -> Result<AbortHandle> {
    let client = Client::open(url)?;
    let info = client.get_connection_info();
    let ConnectionAddr::Tcp(host, port) = info.addr() else {
        return Err("the server is not reached by TCP".into());
    };
    let mut stream = TcpStream::connect((host.as_str(), *port)).await?;
    if let Some(password) = info.redis_settings().password() {
        let mut command = redis::cmd("AUTH");
        if let Some(user) = info.redis_settings().username() {
            command.arg(user);
        }
        stream
            .write_all(&command.arg(password).get_packed_command())
            .await?;
    }
    let subscribe = redis::cmd("SUBSCRIBE").arg(CHANNEL).get_packed_command();
    stream.write_all(&subscribe).await?;
    let listening = tokio::spawn(async move { io::copy(&mut stream, &mut io::sink()).await });
    Ok(listening.abort_handle())
}

/// The body of a message: what stands behind the lines of the headers.
fn body(message: &[u8]) -> &[u8] {
    let head = message.windows(2).position(|two| two == b"\n\n");
    head.map_or(message, |end| &message[end + 2..])
}

async fn in_the_reading_task(mut heard: PubSubStream, probe: &Probe) -> Result<()> {
    while !probe.is_full() {
        let message = heard.next().await.ok_or("the listener ended")?;
        probe.note(Order::from_json(body(message.get_payload_bytes()))?.n);
    }
    Ok(())
}

async fn a_task_each(mut heard: PubSubStream, probe: &Arc<Probe>) -> Result<()> {
    let places = Arc::new(Semaphore::new(CONCURRENCY));
    let mut tasks: JoinSet<Result<()>> = JoinSet::new();
    for _ in 0..probe.expected() {
        let message = heard.next().await.ok_or("the listener ended")?;
        let place = Arc::clone(&places).acquire_owned().await?;
        let probe = Arc::clone(probe);
        tasks.spawn(async move {
            probe.note(Order::from_json(body(message.get_payload_bytes()))?.n);
            drop(place);
            Ok(())
        });
        while let Some(done) = tasks.try_join_next() {
            done??;
        }
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

fn is_heard(answer: Value) -> Result<()> {
    match answer {
        Value::Int(1) => Ok(()),
        other => Err(format!("not one listener: {other:?}").into()),
    }
}

fn bare(order: &Order) -> Cmd {
    let mut command = redis::cmd("PUBLISH");
    command.arg(CHANNEL).arg(order.json());
    command
}

fn whole(order: &Order) -> Cmd {
    let mut message = b"interline/1\n".to_vec();
    for (name, value) in wire::HEADERS {
        let line = [
            format!("h:{name}").as_bytes(),
            b" ",
            value.as_bytes(),
            b"\n",
        ]
        .concat();
        message.extend_from_slice(&line);
    }
    message.push(b'\n');
    message.extend_from_slice(&order.json());
    let mut command = redis::cmd("PUBLISH");
    command.arg(CHANNEL).arg(message);
    command
}
