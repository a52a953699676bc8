//! Requests and their replies: who listens where.

use std::sync::Arc;

use tokio::sync::mpsc::error::TrySendError;

use crate::handling::{BoxFuture, PublishError, PublishErrorKind};
use crate::message::{Incoming, Origin, Outgoing, Place, ReplyAddress, headers::name};
use crate::messaging::{ReplyEvent, ReplyEvents, Requests};

use super::broker::Link;
use super::events::EventKind;
use super::state::State;

/// The end of an app at which replies are heard. Each connection of the app has a new address, so
/// that what answers a request of an old one finds nobody, as on a broker across the network.
pub(super) struct ReplyEnd {
    link: Arc<Link>,
    events: ReplyEvents,
}

/// The listening end as the engine holds it.
pub(super) struct MemoryRequests {
    link: Arc<Link>,
    number: u64,
}

impl MemoryRequests {
    /// Listens for the app behind `link`, from now on.
    pub(super) fn listen(link: Arc<Link>, events: ReplyEvents) -> Self {
        let number = link.shared.with(|state| {
            let number = state.serial();
            let end = ReplyEnd {
                link: Arc::clone(&link),
                events,
            };
            state.reply_ends.insert(number, end);
            number
        });
        Self { link, number }
    }
}

impl Requests for MemoryRequests {
    fn send(&self, outgoing: Outgoing) -> BoxFuture<'_, Result<u64, PublishError>> {
        let number = self.number;
        Box::pin(
            self.link
                .when_up(outgoing, move |state, link, mut outgoing| {
                    let epoch = link.epoch();
                    let address = format!("{number}:{epoch}");
                    outgoing.headers.set(name::REPLY_TO, address);
                    state.publish(link, outgoing).map(|()| epoch)
                }),
        )
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.link
            .shared
            .with(|state| drop(state.reply_ends.remove(&self.number)));
        Box::pin(std::future::ready(()))
    }
}

/// Sends a reply for an app whose connection is up.
pub(super) async fn reply(
    link: &Arc<Link>,
    to: ReplyAddress,
    outgoing: Outgoing,
) -> Result<(), PublishError> {
    let Some((number, epoch)) = read(&to) else {
        let why = format!("`{to}` is not a reply address of an embedded broker");
        let kind = PublishErrorKind::Unsupported;
        return Err(PublishError::new(kind, outgoing.topic.clone(), why));
    };
    let found = link
        .when_up(outgoing, move |state, link, outgoing| {
            Ok(state.reply(link, number, epoch, outgoing))
        })
        .await?;
    if let Some((events, incoming)) = found {
        // Whoever listened may be gone meanwhile, as may be anybody who asked.
        let _ = events.send(ReplyEvent::Reply(incoming)).await;
    }
    Ok(())
}

fn read(address: &ReplyAddress) -> Option<(u64, u64)> {
    let (number, epoch) = address.as_str().split_once(':')?;
    Some((number.parse().ok()?, epoch.parse().ok()?))
}

impl State {
    /// Finds who listens at an address, and makes the message that they get.
    fn reply(
        &mut self,
        link: &Link,
        number: u64,
        epoch: u64,
        outgoing: Outgoing,
    ) -> Option<(ReplyEvents, Incoming)> {
        let end = self.reply_ends.get(&number);
        let end = end.filter(|end| end.link.epoch() == epoch && epoch > 0);
        self.events.record(|| EventKind::Replied {
            instance: Arc::clone(&link.instance),
            id: outgoing.id.clone(),
            request: outgoing
                .headers
                .text(name::IN_REPLY_TO)
                .map(|request| Arc::from(&*request)),
            heard: end.is_some(),
        });
        let end = end?;
        let place = Place::Memory {
            queue: "replies".into(),
            offset: 0,
        };
        let origin = Origin::new(Arc::clone(&end.link.name), place);
        let topic = Arc::from(&*outgoing.topic);
        let mut headers = outgoing.headers;
        headers.set(name::MESSAGE_ID, outgoing.id.to_string());
        let incoming = Incoming::new(topic, outgoing.body, headers, origin);
        Some((end.events.clone(), incoming))
    }

    /// The connection of `link` is gone, and with it every reply that was to come on it.
    pub(super) fn lose_replies(&mut self, link: &Arc<Link>, epoch: u64, for_good: bool) {
        let ours = |end: &ReplyEnd| Arc::ptr_eq(&end.link, link);
        for end in self.reply_ends.values().filter(|end| ours(end)) {
            let lost = ReplyEvent::Lost { epoch };
            if let Err(TrySendError::Full(lost)) = end.events.try_send(lost)
                && let Some(runtime) = link.runtime()
            {
                let events = end.events.clone();
                runtime.spawn(async move {
                    // The engine takes events as long as there are calls that could be told.
                    let _ = events.send(lost).await;
                });
            }
        }
        if for_good {
            self.reply_ends.retain(|_, end| !ours(end));
        }
    }
}
