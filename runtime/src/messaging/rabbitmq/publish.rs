//! Publishing: from a prepared message to the server's confirmation.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lapin::types::{MAX_SHORT_STRING_LENGTH, ShortString};
use lapin::{BasicProperties, Error, ErrorKind};
use tokio::time::timeout;

use crate::handling::{PublishError, PublishErrorKind};
use crate::message::headers::name;
use crate::message::{Headers, Outgoing};
use crate::messaging::{BrokerError, BrokerErrorKind};

use super::connection::Live;
use super::core::{Core, Link};
use super::errors::{self, plain};
use super::headers;
use super::lane::{Job, Verdict};

/// How long a copy to a delay queue or to the dead letters may wait for its confirmation.
const COPY_TIMEOUT: Duration = Duration::from_secs(30);

impl Core {
    /// Publishes; waits as long as there is no connection. Whoever calls limits the time.
    pub(super) async fn publish(&self, outgoing: Outgoing) -> Result<(), PublishError> {
        let (exchange, routing_key) = self.address(&outgoing)?;
        let foreign = exchange != self.settings.exchange && !exchange.is_empty();
        let turn = match &outgoing.key {
            Some(key) => hash(key),
            None => self.next_turn(),
        };
        loop {
            let Some(live) = self.wait_until_up().await else {
                return Err(self.closed_to(outgoing));
            };
            // Made again for a second try, which is rare: a copy of the properties is not cheaper.
            let job = || Job {
                exchange: exchange.into(),
                routing_key: routing_key.into(),
                mandatory: !outgoing.subscribers_optional,
                body: outgoing.body.clone(),
                properties: properties(&outgoing),
            };
            match live.lane(foreign, turn).publish(job).await {
                Some(verdict) => return judge(verdict, exchange, &outgoing),
                None => self.wait_for_another(&live).await,
            }
        }
    }

    /// The exchange and the routing key of a message that AMQP can carry.
    pub(super) fn address<'a>(
        &'a self,
        outgoing: &'a Outgoing,
    ) -> Result<(&'a str, &'a str), PublishError> {
        let wrong =
            |kind, message: String| PublishError::new(kind, outgoing.topic.clone(), message);
        let exchange = outgoing.rabbitmq.exchange.as_deref();
        let exchange = exchange.unwrap_or(&self.settings.exchange);
        let key = outgoing.rabbitmq.routing_key.as_deref();
        let key = key.unwrap_or(&outgoing.topic);
        for (what, text) in [("exchange", exchange), ("routing key", key)] {
            if text.len() > MAX_SHORT_STRING_LENGTH {
                let message = format!("the {what} is longer than AMQP's 255 bytes");
                return Err(wrong(PublishErrorKind::Topic, message));
            }
        }
        if let Some(name) = headers::unfit_name(&outgoing.headers) {
            let start: String = name.chars().take(40).collect();
            let message = format!("the header name `{start}..` is longer than AMQP's 255 bytes");
            return Err(wrong(PublishErrorKind::Encode, message));
        }
        Ok((exchange, key))
    }

    /// Why nothing can be published: there is no connection, and there will be none.
    pub(super) fn closed_to(&self, outgoing: Outgoing) -> PublishError {
        let (kind, why) = match &*self.link.borrow() {
            Link::Failed(why) => (PublishErrorKind::ChannelLost, why.to_string()),
            _ => (
                PublishErrorKind::Closed,
                "the connection is closed".to_owned(),
            ),
        };
        let error = PublishError::new(kind, outgoing.topic.clone(), why);
        match kind {
            PublishErrorKind::Closed => error,
            _ => error.with_outgoing(outgoing),
        }
    }

    /// Publishes a copy straight to a queue, persistent and confirmed.
    pub(super) async fn publish_copy(
        &self,
        live: &Live,
        queue: &str,
        body: Bytes,
        properties: BasicProperties,
    ) -> Result<(), CopyError> {
        let turn = self.next_turn();
        self.publish_copy_in_turn(live, turn, queue, (body, properties))
            .await
    }

    /// The same, in one order with all that have the same turn.
    pub(super) async fn publish_copy_in_turn(
        &self,
        live: &Live,
        turn: u64,
        queue: &str,
        (body, properties): (Bytes, BasicProperties),
    ) -> Result<(), CopyError> {
        let lost = |text: String| CopyError::Failed(BrokerErrorKind::ConnectionLost, text);
        let routing_key = ShortString::try_new(queue).map_err(|error| {
            CopyError::Failed(BrokerErrorKind::Configuration, error.to_string())
        })?;
        let job = || Job {
            exchange: ShortString::default(),
            routing_key: routing_key.clone(),
            mandatory: true,
            body: body.clone(),
            properties: properties.clone(),
        };
        let sending = async {
            match live.lane(false, turn).publish(job).await {
                Some(Verdict::Confirmed) => Ok(()),
                Some(Verdict::Unroutable) => Err(CopyError::Missing),
                Some(Verdict::Nacked) => Err(CopyError::Failed(
                    BrokerErrorKind::Refused,
                    "the server refused the copy (the queue is full or unavailable)".to_owned(),
                )),
                Some(Verdict::Lost(error)) => Err(lost(plain(&error.to_string()))),
                None => Err(lost("the connection is gone".to_owned())),
            }
        };
        match timeout(COPY_TIMEOUT, sending).await {
            Ok(done) => done,
            Err(_) => Err(CopyError::Failed(
                BrokerErrorKind::Timeout,
                format!("the copy was not confirmed within {COPY_TIMEOUT:?}"),
            )),
        }
    }

    /// The connection as soon as it is up; `None` if it cannot come without somebody's doing.
    pub(super) async fn wait_until_up(&self) -> Option<Arc<Live>> {
        if let Some(live) = self.live() {
            return Some(live);
        }
        let mut link = self.link.subscribe();
        let settled = |link: &Link| matches!(link, Link::Up(_) | Link::Failed(_) | Link::Closed);
        match &*link.wait_for(settled).await.ok()? {
            Link::Up(live) => Some(Arc::clone(live)),
            _ => None,
        }
    }

    pub(super) async fn wait_for_another(&self, old: &Arc<Live>) {
        let mut link = self.link.subscribe();
        let other = |link: &Link| !matches!(link, Link::Up(live) if Arc::ptr_eq(live, old));
        // The sender lives as long as this core.
        let _ = link.wait_for(other).await;
    }
}

/// What a lane's verdict means for the message that was published to `exchange`.
pub(super) fn judge(
    verdict: Verdict,
    exchange: &str,
    outgoing: &Outgoing,
) -> Result<(), PublishError> {
    let (kind, message) = match verdict {
        Verdict::Confirmed => return Ok(()),
        Verdict::Unroutable => (
            PublishErrorKind::Unroutable,
            format!("no queue is bound for it to exchange `{exchange}`"),
        ),
        Verdict::Nacked => (
            PublishErrorKind::Nacked,
            "the server refused it (a queue is full or unavailable)".to_owned(),
        ),
        Verdict::Lost(error) => lost(&error, exchange, outgoing.body.len()),
    };
    let error = PublishError::new(kind, outgoing.topic.clone(), message);
    Err(error.with_outgoing(outgoing.clone()))
}

/// Why a copy was not confirmed.
#[derive(Debug)]
pub(super) enum CopyError {
    /// There is no such queue.
    Missing,
    Failed(BrokerErrorKind, String),
}

impl CopyError {
    pub(super) fn into_broker_error(self, broker: &Arc<str>, queue: &str) -> BrokerError {
        let (kind, text) = match self {
            Self::Missing => (BrokerErrorKind::NotFound, "it does not exist".to_owned()),
            Self::Failed(kind, text) => (kind, text),
        };
        BrokerError::new(kind, broker, format!("queue `{queue}`: {text}"))
    }
}

pub(super) fn properties(outgoing: &Outgoing) -> BasicProperties {
    let mut own = BasicProperties::default();
    if let Some(ttl) = outgoing.ttl {
        own = own.with_expiration(ttl.as_millis().to_string().into());
    }
    if let Some(priority) = outgoing.priority {
        own = own.with_priority(priority);
    }
    let lacks_key = outgoing.key.is_some() && !outgoing.headers.contains(name::MESSAGE_KEY);
    let lacks_id = !outgoing.headers.contains(name::MESSAGE_ID);
    if !lacks_key && !lacks_id {
        return headers::write(&outgoing.headers, own);
    }
    let mut all: Headers = outgoing.headers.clone();
    if let Some(key) = outgoing.key.as_ref().filter(|_| lacks_key) {
        all.set(name::MESSAGE_KEY, key.clone());
    }
    if lacks_id {
        all.set(name::MESSAGE_ID, outgoing.id.to_string());
    }
    headers::write(&all, own)
}

/// What ended the channel under a publish to `exchange`. Everything that was on its way there ends
/// with the same words of the server, but only one message was their cause.
fn lost(error: &Error, exchange: &str, size: usize) -> (PublishErrorKind, String) {
    let text = match error.kind() {
        ErrorKind::ProtocolError(error) => error.get_message().as_str().to_owned(),
        _ => error.to_string(),
    };
    if let Some(("exchange", missing)) = errors::missing_object(&text)
        && missing == exchange
    {
        let message = format!("exchange `{exchange}` does not exist");
        return (PublishErrorKind::Unroutable, message);
    }
    if text.contains(&format!("exchange '{exchange}'")) && text.contains("ACCESS_REFUSED") {
        let message = format!("the user may not publish to exchange `{exchange}`");
        return (PublishErrorKind::Nacked, message);
    }
    if text.contains(&format!("message size {size} is larger")) {
        return (PublishErrorKind::TooLarge, plain(&text));
    }
    let message = format!(
        "the channel was lost before the confirmation came: {}",
        plain(&text)
    );
    (PublishErrorKind::ChannelLost, message)
}

fn hash(key: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::MessageId;
    use lapin::protocol::AMQPError;

    fn amqp(code: u16, text: &str) -> Error {
        ErrorKind::ProtocolError(AMQPError::from_id(code, text.into()).unwrap()).into()
    }

    #[test]
    fn only_the_message_that_closed_the_channel_gets_its_reason() {
        let missing = amqp(404, "NOT_FOUND - no exchange 'nope' in vhost '/'");
        assert_eq!(lost(&missing, "nope", 1).0, PublishErrorKind::Unroutable);
        assert_eq!(
            lost(&missing, "interline", 1).0,
            PublishErrorKind::ChannelLost
        );
        let refused = amqp(
            403,
            "ACCESS_REFUSED - access to exchange 'x' in vhost '/' refused for user 'u'",
        );
        assert_eq!(lost(&refused, "x", 1).0, PublishErrorKind::Nacked);
        let large = amqp(
            406,
            "PRECONDITION_FAILED - message size 20 is larger than configured max size 10",
        );
        assert_eq!(lost(&large, "x", 20).0, PublishErrorKind::TooLarge);
        assert_eq!(lost(&large, "x", 5).0, PublishErrorKind::ChannelLost);
    }

    #[test]
    fn foreign_consumers_find_our_fields_in_the_properties() {
        let id = MessageId::parse("m-1").unwrap();
        let mut outgoing = Outgoing::new("orders.placed", id, Bytes::new());
        outgoing.headers.set(name::CONTENT_TYPE, "application/json");
        outgoing.headers.set(name::MESSAGE_TYPE, "OrderPlaced");
        outgoing.headers.set(name::SENDER, "shop");
        outgoing.key = Some("o-7".to_owned());
        outgoing.ttl = Some(Duration::from_millis(1_500));
        outgoing.priority = Some(4);
        let properties = properties(&outgoing);
        let text = |value: &Option<ShortString>| value.as_ref().map(ShortString::to_string);
        assert_eq!(text(properties.message_id()).as_deref(), Some("m-1"));
        assert_eq!(
            text(properties.content_type()).as_deref(),
            Some("application/json")
        );
        assert_eq!(text(properties.kind()).as_deref(), Some("OrderPlaced"));
        assert_eq!(text(properties.app_id()).as_deref(), Some("shop"));
        assert_eq!(text(properties.expiration()).as_deref(), Some("1500"));
        assert_eq!(
            (*properties.priority(), *properties.delivery_mode()),
            (Some(4), Some(2))
        );
        let table = properties.headers().as_ref().unwrap();
        assert!(table.contains_key(name::MESSAGE_KEY) && table.contains_key(name::MESSAGE_ID));
    }
}
