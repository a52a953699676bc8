//! Redis Pub/Sub, with a prefix for each place and a plain client.

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use interline::config::Config;
use interline::{HeaderValue, Headers};
use interline_tests::redis::Database;
use interline_tests::servers;
use tokio::sync::mpsc;

use super::{Bench, Seen, Trouble};

/// More than any case publishes.
const LISTENED_MAX: usize = 10_000;
/// The first line of a message with headers.
const MARK: &str = "interline/1";

/// A prefix of its own: databases do not keep channels apart.
pub(crate) struct ChannelBench {
    database: Database,
    prefix: String,
}

impl ChannelBench {
    pub(crate) async fn open() -> Result<Self, Trouble> {
        Ok(Self {
            database: Database::create_on(servers::redis().await?).await?,
            prefix: servers::unique_prefix(),
        })
    }

    fn channel(&self, topic: &str) -> String {
        format!("{}{topic}", self.prefix)
    }
}

impl Bench for ChannelBench {
    fn configure(&self, config: Config, broker: &str) -> Config {
        config
            .with("naming.prefix", self.prefix.as_str())
            .with(&format!("brokers.{broker}.kind"), "redis-pubsub")
            .with(&format!("brokers.{broker}.url"), self.database.url.as_str())
    }

    fn publish<'a>(
        &'a self,
        topic: &'a str,
        body: Bytes,
        headers: Headers,
    ) -> BoxFuture<'a, Result<(), Trouble>> {
        Box::pin(async move {
            let mut message = format!("{MARK}\n").into_bytes();
            for (name, value) in headers.iter() {
                let text = value.to_text().ok_or("foreign headers are texts")?;
                let line = format!("h:{} {}\n", escaped(name, true), escaped(&text, false));
                message.extend_from_slice(line.as_bytes());
            }
            message.push(b'\n');
            message.extend_from_slice(&body);
            let mut publish = redis::cmd("PUBLISH");
            publish.arg(self.channel(topic)).arg(message);
            let mut connection = self.database.connection().await?;
            let heard: u64 = publish.query_async(&mut connection).await?;
            if heard == 0 {
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
            let client = redis::Client::open(self.database.url.as_str())?;
            let mut listening = client.get_async_pubsub().await?;
            listening.subscribe(self.channel(topic)).await?;
            let (send, heard) = mpsc::channel(LISTENED_MAX);
            tokio::spawn(async move {
                let mut messages = listening.on_message();
                while let Some(message) = messages.next().await {
                    let message = message.get_payload_bytes();
                    if send.send(seen(message)).await.is_err() {
                        return;
                    }
                }
            });
            Ok(heard)
        })
    }

    fn take_dead<'a>(
        &'a self,
        _group: &'a str,
        _topic: &'a str,
    ) -> BoxFuture<'a, Result<Vec<Seen>, Trouble>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn left<'a>(
        &'a self,
        _group: &'a str,
        _topic: &'a str,
    ) -> BoxFuture<'a, Result<usize, Trouble>> {
        // A channel keeps nothing.
        Box::pin(async { Ok(0) })
    }

    fn close(&self) -> BoxFuture<'_, Result<(), Trouble>> {
        Box::pin(async { Ok(self.database.delete().await?) })
    }
}

/// What may not stand in a line as it is.
fn escaped(text: &str, is_name: bool) -> String {
    let mut line = String::new();
    for letter in text.chars() {
        if letter.is_ascii_control() || letter == '%' || (is_name && letter == ' ') {
            line.push_str(&format!("%{:02x}", u32::from(letter)));
        } else {
            line.push(letter);
        }
    }
    line
}

fn unescaped(text: &str) -> String {
    let mut parts = text.split('%');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = u8::from_str_radix(&part[..2], 16).expect("two hexadecimal digits");
        plain.push(char::from(code));
        plain.push_str(&part[2..]);
    }
    plain
}

/// A message as `docs/wire.md` describes it.
fn seen(message: &[u8]) -> Seen {
    let body_alone = || Seen {
        headers: Headers::new(),
        body: Bytes::copy_from_slice(message),
    };
    let end = message.windows(2).position(|two| two == b"\n\n");
    let Some(end) = end.filter(|_| message.starts_with(MARK.as_bytes())) else {
        return body_alone();
    };
    let head = std::str::from_utf8(&message[..end]).expect("headers are text");
    let mut headers = Headers::new();
    for line in head.lines().skip(1) {
        let (field, value) = line.split_once(' ').expect("a name and a value");
        let (field, text) = (unescaped(field), unescaped(value));
        if let Some(name) = field.strip_prefix("h:") {
            headers.set(name.to_owned(), text);
        } else if let Some((kind, name)) = field.strip_prefix("h.").and_then(|f| f.split_once(':'))
        {
            let value = match kind {
                "bool" => HeaderValue::Bool(text == "true"),
                "float" => HeaderValue::Float(text.parse().expect("a number")),
                "int" => HeaderValue::Int(text.parse().expect("a number")),
                "time" => HeaderValue::Timestamp(text.parse().expect("a number")),
                "uint" => HeaderValue::UInt(text.parse().expect("a number")),
                _ => HeaderValue::Null,
            };
            headers.set(name.to_owned(), value);
        }
    }
    Seen {
        headers,
        body: Bytes::copy_from_slice(&message[end + 2..]),
    }
}
