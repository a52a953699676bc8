//! Requests by direct reply-to: one channel that publishes them and hears the replies. The server
//! ties the two together, so a reply finds this channel or nobody.
//!
//! A channel on which the server refused a request is followed by another, as that of a lane is; what
//! was asked there is still answered there.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use lapin::options::{BasicConsumeOptions, ConfirmSelectOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Connection};
use tokio::sync::{Notify, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};

use crate::handling::{BoxFuture, PublishError, PublishErrorKind};
use crate::message::{Incoming, Origin, Outgoing, Place};
use crate::messaging::{BrokerError, BrokerErrorKind, ReplyEvent, ReplyEvents, Requests};

use super::connection::{Live, OPERATION_TIMEOUT, limited};
use super::core::{BACKOFF_MAX, Core, Link, lock};
use super::headers;
use super::lane::{Job, Line, Renewal, Verdict};

/// The pseudo-queue whose consumer hears the replies, and the address that the server replaces by
/// one of this channel.
const REPLY_TO: &str = "amq.rabbitmq.reply-to";
const REPLIES: &str = "replies";
const REPLY_SUCCESS: u16 = 200;
/// How long the replies to what was asked on a channel are heard after another has followed.
const FORMER_MAX: Duration = Duration::from_secs(120);

/// The channel for requests, as far as it is there.
#[derive(Clone)]
enum End {
    Opening,
    Open { epoch: u64, line: Line },
    Closed,
}

/// The listening end as the engine holds it.
pub(super) struct DirectRequests {
    core: Arc<Core>,
    end: watch::Receiver<End>,
    task: AbortHandle,
    renewal: Mutex<Renewal>,
    renew: Arc<Notify>,
}

impl DirectRequests {
    /// Begins to listen, and waits until a reply would be heard.
    pub(super) async fn listen(core: &Arc<Core>, events: ReplyEvents) -> Result<Self, BrokerError> {
        let (sender, end) = watch::channel(End::Opening);
        let renew = Arc::<Notify>::default();
        let task = run(Arc::clone(core), sender, events, Arc::clone(&renew));
        let task = tokio::spawn(task);
        let mut requests = Self {
            core: Arc::clone(core),
            end,
            task: task.abort_handle(),
            renewal: Mutex::default(),
            renew,
        };
        match requests.open().await {
            Some(_) => Ok(requests),
            None => Err(closed(core)),
        }
    }

    /// The open end, once there is one; `None` if there will be none.
    async fn open(&mut self) -> Option<(u64, Line)> {
        open(&mut self.end).await
    }

    async fn publish(&self, outgoing: Outgoing) -> Result<u64, PublishError> {
        let mut end = self.end.clone();
        let (exchange, routing_key) = self.core.address(&outgoing)?;
        // What a foreign responder copies into its reply.
        let properties = super::publish::properties(&outgoing)
            .with_reply_to(REPLY_TO.into())
            .with_correlation_id(outgoing.id.as_str().into());
        loop {
            let Some((epoch, line)) = open(&mut end).await else {
                let text = closed(&self.core).to_string();
                let kind = PublishErrorKind::Closed;
                return Err(
                    PublishError::new(kind, outgoing.topic.clone(), text).with_outgoing(outgoing)
                );
            };
            let job = || Job {
                exchange: exchange.into(),
                routing_key: routing_key.into(),
                mandatory: !outgoing.subscribers_optional,
                body: outgoing.body.clone(),
                properties: properties.clone(),
            };
            match line.publish(job).await {
                Some(verdict) => {
                    let refused = matches!(verdict, Verdict::Nacked);
                    if refused && lock(&self.renewal).is_due(Instant::now()) {
                        self.renew.notify_one();
                    }
                    return super::publish::judge(verdict, exchange, &outgoing).map(|()| epoch);
                }
                // It never left: the channel went before its turn came.
                None => another(&mut end, epoch).await,
            }
        }
    }
}

impl Requests for DirectRequests {
    fn send(&self, outgoing: Outgoing) -> BoxFuture<'_, Result<u64, PublishError>> {
        Box::pin(self.publish(outgoing))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.task.abort();
        Box::pin(std::future::ready(()))
    }
}

impl Drop for DirectRequests {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn closed(core: &Core) -> BrokerError {
    let why = match &*core.link.borrow() {
        Link::Failed(why) => why.to_string(),
        _ => "the connection is closed".to_owned(),
    };
    BrokerError::new(BrokerErrorKind::ConnectionLost, &core.context.name, why)
}

async fn open(end: &mut watch::Receiver<End>) -> Option<(u64, Line)> {
    let settled = |end: &End| !matches!(end, End::Opening);
    match end.wait_for(settled).await.ok()?.clone() {
        End::Open { epoch, line } => Some((epoch, line)),
        End::Opening | End::Closed => None,
    }
}

/// Waits until the end is another than that of `epoch`.
async fn another(end: &mut watch::Receiver<End>, epoch: u64) {
    let other = |end: &End| !matches!(end, End::Open { epoch: now, .. } if *now == epoch);
    // If the task is gone, the next look says so.
    let _ = end.wait_for(other).await;
}

/// Keeps a channel open as long as the link is not closed for good.
async fn run(core: Arc<Core>, end: watch::Sender<End>, events: ReplyEvents, renew: Arc<Notify>) {
    let mut attempt = 0;
    let mut former = JoinSet::new();
    while let Some(live) = core.wait_until_up().await {
        match listen(&core, &live).await {
            Ok((channel, consumer)) => {
                attempt = 0;
                let epoch = core.next_epoch();
                let line = Line::on(channel.clone());
                end.send_replace(End::Open { epoch, line });
                let mut hearing = Box::pin(hear(Arc::clone(&core), consumer, events.clone()));
                let is_lost = tokio::select! {
                    () = &mut hearing => true,
                    () = renew.notified() => false,
                };
                while former.try_join_next().is_some() {}
                if !is_lost {
                    let events = events.clone();
                    former.spawn(async move {
                        // Whoever waits longer than that for an answer learns that it will not come.
                        let _ = timeout(FORMER_MAX, hearing).await;
                        let _ = events.send(ReplyEvent::Lost { epoch }).await;
                        let closing = channel.close(REPLY_SUCCESS, "OK".into());
                        let _ = timeout(OPERATION_TIMEOUT, closing).await;
                    });
                    continue;
                }
                end.send_replace(End::Opening);
                if events.send(ReplyEvent::Lost { epoch }).await.is_err() {
                    break;
                }
            }
            Err(error) => {
                tracing::debug!(broker = %core.context.name, %error, "not listening for replies yet");
            }
        }
        sleep(core.backoff(attempt, BACKOFF_MAX)).await;
        attempt += 1;
    }
    end.send_replace(End::Closed);
}

async fn listen(core: &Core, live: &Live) -> Result<(Channel, lapin::Consumer), BrokerError> {
    let broker = &core.context.name;
    let connection: &Connection = &live.publish;
    let channel = limited(broker, "a channel", connection.create_channel()).await?;
    let confirms = channel.confirm_select(ConfirmSelectOptions::default());
    limited(broker, "publisher confirms", confirms).await?;
    let options = BasicConsumeOptions {
        no_ack: true,
        ..BasicConsumeOptions::default()
    };
    let consume = channel.basic_consume(
        REPLY_TO.into(),
        ShortString::default(),
        options,
        FieldTable::default(),
    );
    let consumer = limited(broker, "direct reply-to", consume).await?;
    Ok((channel, consumer))
}

/// Hands over replies until the channel ends, or nobody takes them any more.
async fn hear(core: Arc<Core>, mut consumer: lapin::Consumer, events: ReplyEvents) {
    while let Some(Ok(delivery)) = consumer.next().await {
        let headers = headers::read(&delivery.properties);
        let place = Place::RabbitMq {
            exchange: delivery.exchange.as_str().into(),
            routing_key: delivery.routing_key.as_str().into(),
            queue: REPLIES.into(),
        };
        let origin = Origin::new(Arc::clone(&core.context.name), place);
        let body = Bytes::from(delivery.data);
        let incoming = Incoming::new(REPLIES.into(), body, headers, origin);
        let taken = timeout(OPERATION_TIMEOUT, events.send(ReplyEvent::Reply(incoming)));
        if !matches!(taken.await, Ok(Ok(()))) {
            return;
        }
    }
}
