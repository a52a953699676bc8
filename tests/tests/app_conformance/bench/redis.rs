//! Redis, with a database for each place and a plain client.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use interline::config::Config;
use interline::{HeaderValue, Headers};
use interline_tests::redis::Database;
use interline_tests::servers;
use redis::Value;
use redis::streams::{StreamId, StreamInfoGroupsReply, StreamRangeReply, StreamReadReply};
use tokio::sync::mpsc;

use super::{Bench, Seen, Trouble};

/// More than any case publishes.
const LISTENED_MAX: usize = 10_000;
/// Somebody who listens from outside is a group like any other.
const OUTSIDE: &str = "outside";

/// A database of its own.
pub(crate) struct RedisBench {
    database: Database,
}

impl RedisBench {
    pub(crate) async fn open() -> Result<Self, Trouble> {
        let database = Database::create_on(servers::redis().await?).await?;
        Ok(Self { database })
    }

    async fn entries(&self, words: &[&str]) -> Result<StreamRangeReply, Trouble> {
        Ok(redis::from_redis_value(
            self.database.command(words).await?,
        )?)
    }
}

impl Bench for RedisBench {
    fn configure(&self, config: Config, broker: &str) -> Config {
        let key = |name: &str| format!("brokers.{broker}.{name}");
        // An instance that is killed in a case is missed soon.
        config
            .with(&key("url"), self.database.url.as_str())
            .with(&key("claim_after"), "2s")
            .with(&key("lease"), "2s")
    }

    fn publish<'a>(
        &'a self,
        topic: &'a str,
        body: Bytes,
        headers: Headers,
    ) -> BoxFuture<'a, Result<(), Trouble>> {
        Box::pin(async move {
            let mut add = redis::cmd("XADD");
            add.arg(topic).arg("NOMKSTREAM").arg("*");
            add.arg("payload").arg(&body[..]);
            for (header, value) in headers.iter() {
                let text = value.to_text().ok_or("foreign headers are texts")?;
                add.arg(format!("h:{header}")).arg(&*text);
            }
            let mut connection = self.database.connection().await?;
            let added: Value = add.query_async(&mut connection).await?;
            if added == Value::Nil {
                return Err(format!("nobody listens to `{topic}`").into());
            }
            Ok(())
        })
    }

    fn listen<'a>(
        &'a self,
        topic: &'a str,
    ) -> BoxFuture<'a, Result<mpsc::Receiver<Seen>, Trouble>> {
        Box::pin(async move {
            let make = ["XGROUP", "CREATE", topic, OUTSIDE, "$", "MKSTREAM"];
            // A second listener of a case shares the group's place, and reads for itself all the same.
            let _ = self.database.command(&make).await;
            let last = self
                .entries(&["XREVRANGE", topic, "+", "-", "COUNT", "1"])
                .await?;
            let mut after = match last.ids.first() {
                Some(entry) => entry.id.clone(),
                None => "0-0".to_owned(),
            };
            let mut connection = self.database.connection().await?;
            let topic = topic.to_owned();
            let (send, heard) = mpsc::channel(LISTENED_MAX);
            tokio::spawn(async move {
                loop {
                    let mut read = redis::cmd("XREAD");
                    read.arg("BLOCK")
                        .arg(1_000)
                        .arg("STREAMS")
                        .arg(&topic)
                        .arg(&after);
                    let Ok(read) = read
                        .query_async::<Option<StreamReadReply>>(&mut connection)
                        .await
                    else {
                        return;
                    };
                    for entry in read
                        .into_iter()
                        .flat_map(|read| read.keys)
                        .flat_map(|key| key.ids)
                    {
                        after.clone_from(&entry.id);
                        if send.send(seen(&entry)).await.is_err() {
                            return;
                        }
                    }
                    if send.is_closed() {
                        return;
                    }
                }
            });
            Ok(heard)
        })
    }

    fn take_dead<'a>(
        &'a self,
        group: &'a str,
        topic: &'a str,
    ) -> BoxFuture<'a, Result<Vec<Seen>, Trouble>> {
        Box::pin(async move {
            let key = format!("{{{topic}}}:{group}:dlq");
            let found = self.entries(&["XRANGE", &key, "-", "+"]).await?;
            for entry in &found.ids {
                self.database.command(&["XDEL", &key, &entry.id]).await?;
            }
            Ok(found.ids.iter().map(seen).collect())
        })
    }

    fn left<'a>(&'a self, group: &'a str, topic: &'a str) -> BoxFuture<'a, Result<usize, Trouble>> {
        Box::pin(async move {
            let mut left = 0;
            for key in [topic.to_owned(), format!("{{{topic}}}:{group}:retry")] {
                let groups = self.database.command(&["XINFO", "GROUPS", &key]).await?;
                let groups: StreamInfoGroupsReply = redis::from_redis_value(groups)?;
                let found = groups.groups.iter().find(|found| found.name == group);
                let found = found.ok_or_else(|| format!("`{key}` has no group `{group}`"))?;
                let after = format!("({}", found.last_delivered_id);
                left += self
                    .entries(&["XRANGE", &key, &after, "+"])
                    .await?
                    .ids
                    .len();
                // What was given back is nobody's.
                let released = ["XPENDING", &key, group, "-", "+", "10000", "released"];
                let released = self.database.command(&released).await?;
                if let Value::Array(released) = released {
                    left += released.len();
                }
            }
            Ok(left)
        })
    }

    fn close(&self) -> BoxFuture<'_, Result<(), Trouble>> {
        Box::pin(async { Ok(self.database.delete().await?) })
    }
}

/// An entry as `docs/wire.md` describes it.
fn seen(entry: &StreamId) -> Seen {
    let mut headers = Headers::new();
    let mut body = Bytes::new();
    for (field, value) in &entry.map {
        let Value::BulkString(value) = value else {
            panic!("`{field}` is {value:?}");
        };
        let text = || String::from_utf8(value.clone()).expect("a header's text");
        if field == "payload" {
            body = value.clone().into();
        } else if let Some(name) = field.strip_prefix("h:") {
            headers.set(name.to_owned(), text());
        } else if let Some((kind, name)) = field.strip_prefix("h.").and_then(|f| f.split_once(':'))
        {
            let value = match kind {
                "bool" => HeaderValue::Bool(text() == "true"),
                "bytes" => HeaderValue::Bytes(value.clone().into()),
                "float" => HeaderValue::Float(text().parse().expect("a number")),
                "int" => HeaderValue::Int(text().parse().expect("a number")),
                "time" => HeaderValue::Timestamp(text().parse().expect("a number")),
                "uint" => HeaderValue::UInt(text().parse().expect("a number")),
                _ => HeaderValue::Null,
            };
            headers.set(name.to_owned(), value);
        }
    }
    Seen { headers, body }
}
