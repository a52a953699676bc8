//! Publishing: an entry is added, and the server's reply is the confirmation.

use redis::{Cmd, Value};

use crate::handling::{PublishError, PublishErrorKind};
use crate::message::headers::name;
use crate::message::{Headers, Outgoing};
use crate::redis::{Failure, FailureKind};

use super::core::{Core, Link};
use super::fields;
use super::live::Live;

/// What became of one attempt.
enum Sent {
    Confirmed,
    NobodyListens,
}

impl Core {
    /// Publishes; waits as long as there is no connection. Whoever calls limits the time.
    pub(super) async fn publish(&self, outgoing: Outgoing) -> Result<(), PublishError> {
        let wrong =
            |kind, message: String| PublishError::new(kind, outgoing.topic.clone(), message);
        let stream = match &outgoing.redis.stream {
            Some(stream) => stream.to_string(),
            None => self.stream_of(&outgoing.topic),
        };
        let Some(live) = self.wait_until_up().await else {
            return Err(self.not_up(&outgoing));
        };
        match self.send(&live, &stream, &outgoing).await {
            Ok(Sent::Confirmed) => Ok(()),
            Ok(Sent::NobodyListens) => {
                let message = format!("nobody listens: stream `{stream}` has no consumer group");
                Err(wrong(PublishErrorKind::Unroutable, message).with_outgoing(outgoing.clone()))
            }
            Err(failure) => Err(publish_error(failure, &outgoing)),
        }
    }

    /// Why a publish did not find a connection.
    pub(super) fn not_up(&self, outgoing: &Outgoing) -> PublishError {
        let wrong =
            |kind, message: String| PublishError::new(kind, outgoing.topic.clone(), message);
        match &*self.link.borrow() {
            Link::Failed(why) => wrong(PublishErrorKind::ChannelLost, why.to_string())
                .with_outgoing(outgoing.clone()),
            _ => wrong(
                PublishErrorKind::Closed,
                "the connection is closed".to_owned(),
            ),
        }
    }

    /// The stream that messages of a topic are published to.
    pub(super) fn stream_of(&self, topic: &str) -> String {
        format!(
            "{}{topic}",
            self.context.prefix.as_deref().unwrap_or_default()
        )
    }

    async fn send(&self, live: &Live, stream: &str, outgoing: &Outgoing) -> Result<Sent, Failure> {
        let what = format!("stream `{stream}`");
        let listened = self.has_group(live, stream).await?;
        if !listened && !outgoing.subscribers_optional {
            return Ok(Sent::NobodyListens);
        }
        let command = self.add(stream, outgoing, listened);
        match live.publish.raw(&what, &command).await? {
            Value::Nil => Ok(Sent::NobodyListens),
            _ => Ok(Sent::Confirmed),
        }
    }

    /// Whether anybody listens to a stream.
    pub(super) async fn has_group(&self, live: &Live, stream: &str) -> Result<bool, Failure> {
        if self.listened.is_fresh(stream) {
            return Ok(true);
        }
        let what = format!("stream `{stream}`");
        let listened = self.is_listened(live, &what, stream).await?;
        if listened {
            self.listened.note(stream);
        }
        Ok(listened)
    }

    async fn is_listened(&self, live: &Live, what: &str, stream: &str) -> Result<bool, Failure> {
        let mut ask = redis::cmd("XINFO");
        ask.arg("GROUPS").arg(stream);
        match live.publish.raw(what, &ask).await {
            Ok(Value::Array(groups)) => Ok(!groups.is_empty()),
            Ok(_) => Ok(true),
            Err(failure) if failure.message.contains("no such key") => Ok(false),
            // Whoever may only add is not told who reads.
            Err(failure) if failure.kind == FailureKind::Permission => Ok(true),
            Err(failure) => Err(failure),
        }
    }

    fn add(&self, stream: &str, outgoing: &Outgoing, listened: bool) -> Cmd {
        let headers = identified(outgoing);
        let mut command = redis::cmd("XADD");
        command.arg(stream);
        if !outgoing.subscribers_optional {
            command.arg("NOMKSTREAM");
        }
        // Consumers trim what they have settled. Where there are none, nobody would.
        if self.settings.max_length > 0 && (self.settings.trims_unread || !listened) {
            command.arg("MAXLEN").arg("~").arg(self.settings.max_length);
        }
        command.arg("*");
        fields::write(
            &self.settings.payload_field,
            &outgoing.body,
            &headers,
            |part| {
                command.arg(part);
            },
        );
        if let Some(ttl) = outgoing.ttl {
            let ttl = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
            command.arg(fields::TTL).arg(ttl);
        }
        command
    }
}

/// The message's headers, with its key and its identity among them.
pub(super) fn identified(outgoing: &Outgoing) -> Headers {
    let mut headers = outgoing.headers.clone();
    if let Some(key) = &outgoing.key
        && !headers.contains(name::MESSAGE_KEY)
    {
        headers.set(name::MESSAGE_KEY, key.clone());
    }
    if !headers.contains(name::MESSAGE_ID) {
        headers.set(name::MESSAGE_ID, outgoing.id.to_string());
    }
    headers
}

/// A failed publish: whether it got there is unknown where the connection went or nobody answered.
pub(super) fn publish_error(failure: Failure, outgoing: &Outgoing) -> PublishError {
    let kind = match failure.kind {
        FailureKind::Timeout => PublishErrorKind::Timeout,
        FailureKind::ConnectionLost | FailureKind::Unreachable => PublishErrorKind::ChannelLost,
        _ => PublishErrorKind::Nacked,
    };
    PublishError::new(kind, outgoing.topic.clone(), failure.message).with_outgoing(outgoing.clone())
}
