//! Requests and their replies: each instance that asks listens to a channel of its own. Whoever asks
//! is there, and a call has its limit, so that a reply may be lost with the connection.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use tracing::warn;

use crate::handling::{BoxFuture, PublishError, PublishErrorKind};
use crate::message::headers::name;
use crate::message::{Incoming, Origin, Outgoing, Place, ReplyAddress};
use crate::messaging::{BrokerError, ReplyEvent, ReplyEvents, Requests};
use crate::observability::metrics::{DROPPED, Series};
use crate::redis::{Connection, Failure, Pushes};

use super::core::{BACKOFF_MAX, Core};
use super::errors::broker_error;
use super::live;
use super::publish::{identified, publish_error};
use super::pubsub::handoff::{Arrived, Handoff};
use super::pubsub::publish::to_channel;
use super::pubsub::settings::Overflow;
use super::pubsub::wire;

/// Replies that wait for the engine, which takes them at once.
const WAITING_MAX: usize = 10_000;

/// Where requests go.
#[derive(Clone, Copy, Debug)]
pub(super) enum Way {
    Channel,
    Stream,
}

/// How the listening end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Down,
    /// Listening, as the one of this epoch.
    Up(u64),
    Closed,
}

/// The channel of an epoch: what answers a request of an earlier one finds nobody.
fn channel(base: &str, epoch: u64) -> String {
    format!("{base}:{epoch}")
}

/// The listening end of an app.
pub(super) struct ChannelRequests {
    core: Arc<Core>,
    way: Way,
    /// What the names of its channels begin with.
    base: Arc<str>,
    end: watch::Sender<End>,
}

impl ChannelRequests {
    /// Listens from now on; returns when a reply would be heard.
    pub(super) async fn listen(
        core: &Arc<Core>,
        way: Way,
        events: ReplyEvents,
    ) -> Result<Arc<dyn Requests>, BrokerError> {
        core.connected()?;
        let context = &core.context;
        // Databases do not keep channels apart, and a name is not always unique.
        let token = context.rng.bytes16();
        let token: String = token.iter().map(|byte| format!("{byte:02x}")).collect();
        let name = core.client_name("replies");
        let base = format!("{}{name}:{token}", core.stream_of(""));
        let labels = vec![Arc::clone(&context.name), "replies".into()];
        let dropped = Series::of(context.metrics.as_deref(), DROPPED, labels);
        let end = watch::Sender::new(End::Down);
        let listener = Listener {
            core: Arc::clone(core),
            base: base.into(),
            end: end.clone(),
            events,
            handoff: Arc::new(Handoff::new(WAITING_MAX, Overflow::Newest, dropped)),
        };
        // The first attempt tells whether it may listen at all.
        let epoch = core.next_epoch();
        let first = listener.subscribe(epoch).await;
        let first = first.map_err(|failure| broker_error(&context.name, &failure))?;
        end.send_replace(End::Up(epoch));
        let requests = Self {
            core: Arc::clone(core),
            way,
            base: Arc::clone(&listener.base),
            end,
        };
        tokio::spawn(listener.run(first, epoch));
        Ok(Arc::new(requests))
    }
}

impl Requests for ChannelRequests {
    fn send(&self, mut outgoing: Outgoing) -> BoxFuture<'_, Result<u64, PublishError>> {
        Box::pin(async move {
            let mut end = self.end.subscribe();
            // The sender is this struct's own.
            let now = end.wait_for(|end| *end != End::Down).await.map(|end| *end);
            let Ok(End::Up(epoch)) = now else {
                let text = "it no longer listens for replies";
                let topic = outgoing.topic.clone();
                return Err(PublishError::new(PublishErrorKind::Closed, topic, text));
            };
            let address = channel(&self.base, epoch);
            outgoing.headers.set(name::REPLY_TO, address);
            let sent = outgoing.clone();
            match self.way {
                Way::Channel => to_channel(&self.core, true, outgoing).await?,
                Way::Stream => self.core.publish(outgoing).await?,
            }
            if *self.end.borrow() == End::Up(epoch) {
                return Ok(epoch);
            }
            let text = "the connection that hears the reply was lost meanwhile";
            let topic = sent.topic.clone();
            let error = PublishError::new(PublishErrorKind::ChannelLost, topic, text);
            Err(error.with_outgoing(sent))
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.end.send_replace(End::Closed);
        Box::pin(std::future::ready(()))
    }
}

impl Drop for ChannelRequests {
    fn drop(&mut self) {
        self.end.send_replace(End::Closed);
    }
}

struct Listener {
    core: Arc<Core>,
    base: Arc<str>,
    end: watch::Sender<End>,
    events: ReplyEvents,
    handoff: Arc<Handoff>,
}

impl Listener {
    async fn run(self, first: Connection, epoch: u64) {
        let mut end = self.end.subscribe();
        tokio::select! {
            // The sender is the listener's own.
            _ = end.wait_for(|end| *end == End::Closed) => {}
            () = self.listen(first, epoch) => {}
            () = self.forward() => {}
        }
        self.end.send_replace(End::Closed);
    }

    /// Listens, and listens again after each loss; returns when the link is closed.
    async fn listen(&self, first: Connection, mut epoch: u64) {
        let mut connection = first;
        loop {
            let why = live::gone(&connection).await;
            drop(connection);
            self.end.send_if_modified(|end| {
                let open = *end != End::Closed;
                if open {
                    *end = End::Down;
                }
                open
            });
            warn!(broker = %self.core.context.name, "replies are not heard: {why}");
            if self.events.send(ReplyEvent::Lost { epoch }).await.is_err() {
                return;
            }
            let mut attempt = 0_u32;
            connection = loop {
                if !self.core.wait_until_up_or_closed().await {
                    return;
                }
                epoch = self.core.next_epoch();
                match self.subscribe(epoch).await {
                    Ok(connection) => break connection,
                    Err(failure) => {
                        warn!(broker = %self.core.context.name, "replies are not heard: {failure}");
                    }
                }
                sleep(self.core.backoff(attempt, BACKOFF_MAX).max(AGAIN_MIN)).await;
                attempt = attempt.saturating_add(1);
            };
            self.end.send_if_modified(|end| {
                let open = *end != End::Closed;
                if open {
                    *end = End::Up(epoch);
                }
                open
            });
        }
    }

    async fn subscribe(&self, epoch: u64) -> Result<Connection, Failure> {
        let handoff = Arc::clone(&self.handoff);
        let pushes: Pushes = Arc::new(move |push| {
            if let Some(arrived) = Arrived::of(push) {
                handoff.offer(arrived);
            }
        });
        let connection = live::pushed(&self.core, "replies", pushes).await?;
        let mut command = redis::cmd("SUBSCRIBE");
        let channel = channel(&self.base, epoch);
        command.arg(&channel);
        let what = format!("channel `{channel}`");
        connection.raw(&what, &command).await?;
        Ok(connection)
    }

    /// Hands replies on; returns when nobody takes them any more.
    async fn forward(&self) {
        loop {
            let arrived = self.handoff.next().await;
            let channel: Arc<str> = String::from_utf8_lossy(&arrived.channel).as_ref().into();
            let read = wire::read(arrived.message);
            let place = Place::RedisChannel {
                channel: Arc::clone(&channel),
            };
            let origin = Origin::new(Arc::clone(&self.core.context.name), place);
            let topic = match read.headers.text(name::TOPIC) {
                Some(topic) => (*topic).into(),
                None => channel,
            };
            let reply = Incoming::new(topic, read.body, read.headers, origin);
            if self.events.send(ReplyEvent::Reply(reply)).await.is_err() {
                return;
            }
        }
    }
}

/// The shortest wait before it listens again.
const AGAIN_MIN: Duration = Duration::from_millis(50);

/// Sends a reply to the channel of the one who asked, who may be gone.
pub(super) async fn reply(
    core: &Core,
    to: &ReplyAddress,
    outgoing: Outgoing,
) -> Result<(), PublishError> {
    let Some(live) = core.wait_until_up().await else {
        return Err(core.not_up(&outgoing));
    };
    let mut headers = identified(&outgoing);
    headers.set(name::TOPIC, outgoing.topic.to_string());
    let mut command = redis::cmd("PUBLISH");
    command.arg(to.as_str());
    command.arg(wire::write(&outgoing.body, &headers));
    let sent = live.publish.raw("a reply", &command).await;
    match sent {
        Ok(_) => Ok(()),
        Err(failure) => Err(publish_error(failure, &outgoing)),
    }
}
