//! Redis Streams, and the loops that a user of `redis` would write.

use std::sync::Arc;

use futures_util::TryStreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use interline::config::Config;
use interline_tests::redis::Database;
use interline_tests::servers;
use redis::aio::MultiplexedConnection;
use redis::streams::{StreamId, StreamReadReply};
use redis::{Cmd, Value};

use crate::order::{Order, Probe};
use crate::transport::{Load, Open, Place, Publishing, Transport};
use crate::{LIMIT, Result, on_redis, wire};

const STREAM: &str = "bench.orders";
/// Interline writes any name that it is told; RustStream knows this one only.
const PAYLOAD: &str = "_payload";
/// What a raw loop reads at once, and how long it waits for it.
const COUNT: usize = 100;
const BLOCK_MS: usize = 1_000;
/// What the SDK handles at once.
const CONCURRENCY: usize = 16;

/// A database of its own.
pub(crate) struct Streams {
    database: Database,
    title: String,
}

impl Streams {
    pub(crate) async fn open() -> Result<Self> {
        let database = Database::create_on(servers::redis().await?).await?;
        let title = format!("Redis Streams, {}", on_redis::server(&database).await?);
        Ok(Self { database, title })
    }
}

impl Transport for Streams {
    fn title(&self) -> String {
        self.title.clone()
    }

    fn times(&self, _: usize) -> u64 {
        5
    }

    fn config(&self) -> Config {
        Config::new()
            .with("brokers.main.url", self.database.url.as_str())
            .with("brokers.main.payload_field", PAYLOAD)
    }

    fn config_of(&self, group: &str) -> Config {
        self.config().with("subscribers.handle.group", group)
    }

    fn place(&self, group: &str) -> Place {
        Place {
            url: self.database.url.clone(),
            source: STREAM.to_owned(),
            group: group.to_owned(),
        }
    }

    fn raw_consumers(&self) -> &'static [&'static str] {
        &[
            "redis, one XACK for each entry, waited for",
            "redis, 16 XACKs in flight",
            "redis, one XACK for each read of 100",
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
            let mut reader = self.database.connection().await?;
            let mut settler = self.database.connection().await?;
            while !probe.is_full() {
                let entries = read(&mut reader, &group).await?;
                match which {
                    0 => one_at_a_time(&mut settler, &group, &entries, &probe).await?,
                    1 => sixteen_at_once(&settler, &group, &entries, &probe).await?,
                    _ => together(&mut settler, &group, &entries, &probe).await?,
                }
            }
            Ok(Box::new((reader, settler)) as Open)
        })
    }

    fn raw_publishers(&self) -> &'static [&'static str] {
        &[
            "redis, the payload alone",
            "redis, the fields that Interline writes",
        ]
    }

    fn publish_raw(&self, which: usize, load: Load) -> BoxFuture<'_, Result<Publishing>> {
        Box::pin(async move {
            let connection = self.database.connection().await?;
            let command = if which == 0 { bare } else { whole };
            let publishing = on_redis::pipelined(connection, load, command, is_added);
            Ok(Box::pin(publishing) as Publishing)
        })
    }

    fn holds<'a>(&'a self, group: &'a str, ready: u64) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let database = &self.database;
            let holds = database.wait_for_group(STREAM, group, ready, LIMIT);
            Ok(holds.await?)
        })
    }

    fn purge<'a>(&'a self, group: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let database = &self.database;
            database
                .command(&["XGROUP", "SETID", STREAM, group, "$"])
                .await?;
            database.command(&["XTRIM", STREAM, "MAXLEN", "0"]).await?;
            Ok(())
        })
    }

    fn remove<'a>(&'a self, group: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let database = &self.database;
            database
                .command(&["XGROUP", "DESTROY", STREAM, group])
                .await?;
            // All groups of a round go together.
            database.command(&["XTRIM", STREAM, "MAXLEN", "0"]).await?;
            Ok(())
        })
    }

    fn end(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move { Ok(self.database.delete().await?) })
    }
}

async fn read(reader: &mut MultiplexedConnection, group: &str) -> Result<Vec<StreamId>> {
    let mut read = redis::cmd("XREADGROUP");
    read.arg("GROUP").arg(group).arg("raw");
    read.arg("COUNT").arg(COUNT).arg("BLOCK").arg(BLOCK_MS);
    read.arg("STREAMS").arg(STREAM).arg(">");
    let read: Option<StreamReadReply> = read.query_async(reader).await?;
    let streams = read.into_iter().flat_map(|read| read.keys);
    Ok(streams.flat_map(|stream| stream.ids).collect())
}

fn handle(entry: &StreamId, probe: &Probe) -> Result<()> {
    let Some(Value::BulkString(payload)) = entry.map.get(PAYLOAD) else {
        return Err(format!("entry {} has no payload", entry.id).into());
    };
    probe.note(Order::from_json(payload)?.n);
    Ok(())
}

fn acknowledgement(group: &str) -> Cmd {
    let mut command = redis::cmd("XACK");
    command.arg(STREAM).arg(group);
    command
}

async fn one_at_a_time(
    settler: &mut MultiplexedConnection,
    group: &str,
    entries: &[StreamId],
    probe: &Probe,
) -> Result<()> {
    for entry in entries {
        handle(entry, probe)?;
        let mut command = acknowledgement(group);
        let _: u64 = command.arg(&entry.id).query_async(settler).await?;
    }
    Ok(())
}

async fn sixteen_at_once(
    settler: &MultiplexedConnection,
    group: &str,
    entries: &[StreamId],
    probe: &Probe,
) -> Result<()> {
    let mut open = FuturesUnordered::new();
    for entry in entries {
        if open.len() == CONCURRENCY {
            let _: Option<u64> = open.try_next().await?;
        }
        handle(entry, probe)?;
        let mut settler = settler.clone();
        open.push(async move {
            let mut command = acknowledgement(group);
            command.arg(&entry.id).query_async(&mut settler).await
        });
    }
    while let Some(_settled) = open.try_next().await? {}
    Ok(())
}

async fn together(
    settler: &mut MultiplexedConnection,
    group: &str,
    entries: &[StreamId],
    probe: &Probe,
) -> Result<()> {
    let mut command = acknowledgement(group);
    for entry in entries {
        handle(entry, probe)?;
        command.arg(&entry.id);
    }
    if !entries.is_empty() {
        let _: u64 = command.query_async(settler).await?;
    }
    Ok(())
}

fn is_added(answer: Value) -> Result<()> {
    match answer {
        Value::BulkString(_) => Ok(()),
        other => Err(format!("not added: {other:?}").into()),
    }
}

fn bare(order: &Order) -> Cmd {
    let mut command = redis::cmd("XADD");
    command.arg(STREAM).arg("NOMKSTREAM").arg("*");
    command.arg(PAYLOAD).arg(order.json());
    command
}

fn whole(order: &Order) -> Cmd {
    let mut command = bare(order);
    for (name, value) in wire::HEADERS {
        command.arg(format!("h:{name}")).arg(value);
    }
    command
}
