//! Requests: pairs replies with the calls that wait for them, within limits.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, SemaphorePermit, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::handling::{RequestError, RequestErrorKind};
use crate::message::{Incoming, MessageId, headers::name};
use crate::messaging::{BrokerErrorKind, MessageBroker, ReplyEvent, Requests};
use crate::observability::metrics::Series;

/// Events that wait to be taken; they are taken at once.
const EVENTS: usize = 256;

/// The calls to one broker that wait for their replies.
pub(super) struct Calls {
    broker: Arc<dyn MessageBroker>,
    places: Semaphore,
    places_max: u32,
    channel: tokio::sync::Mutex<Option<Arc<dyn Requests>>>,
    waiting: Arc<Waiting>,
}

/// Who waits, by the id of the request.
struct Waiting {
    state: Mutex<State>,
    late: Series,
}

#[derive(Default)]
struct State {
    calls: HashMap<MessageId, Vec<Slot>>,
    next: u64,
    /// The last epoch of the listening end that is gone.
    lost: Option<u64>,
}

struct Slot {
    number: u64,
    /// The epoch that it was sent with, once it is.
    epoch: Option<u64>,
    answer: oneshot::Sender<Result<Incoming, RequestErrorKind>>,
}

impl Calls {
    pub(super) fn new(broker: Arc<dyn MessageBroker>, places_max: u32, late: Series) -> Self {
        let places_max = places_max.max(1);
        Self {
            broker,
            places: Semaphore::new(places_max as usize),
            places_max,
            channel: tokio::sync::Mutex::new(None),
            waiting: Arc::new(Waiting {
                state: Mutex::default(),
                late,
            }),
        }
    }

    /// Waits for a free place among the calls.
    pub(super) async fn place(
        &self,
        topic: &str,
        deadline: Instant,
    ) -> Result<SemaphorePermit<'_>, RequestError> {
        match timeout_at(deadline, self.places.acquire()).await {
            Ok(Ok(place)) => Ok(place),
            _ => {
                let text = format!(
                    "{} calls to broker `{}` are waiting for their replies, and none ended in time \
                     (`requests_in_flight`)",
                    self.places_max,
                    self.broker.name()
                );
                let kind = RequestErrorKind::TooManyCalls;
                Err(RequestError::new(kind, topic, text))
            }
        }
    }

    /// The end that listens for replies; begins to listen at the first call.
    pub(super) async fn listen(
        &self,
        topic: &str,
        deadline: Instant,
    ) -> Result<Arc<dyn Requests>, RequestError> {
        let not_in_time = || {
            let broker = self.broker.name();
            let text = format!("broker `{broker}` did not listen for replies in time");
            RequestError::new(RequestErrorKind::Timeout, topic, text).not_sent()
        };
        let Ok(mut channel) = timeout_at(deadline, self.channel.lock()).await else {
            return Err(not_in_time());
        };
        if let Some(channel) = &*channel {
            return Ok(Arc::clone(channel));
        }
        let (sender, events) = mpsc::channel(EVENTS);
        match timeout_at(deadline, self.broker.requests(sender)).await {
            Err(_) => Err(not_in_time()),
            Ok(Err(error)) => {
                let kind = match error.kind() {
                    BrokerErrorKind::Unsupported => RequestErrorKind::Unsupported,
                    _ => RequestErrorKind::Publish,
                };
                let retryable = error.is_retryable();
                let error = RequestError::new(kind, topic, error.to_string()).with_source(error);
                Err(error.retryable(retryable))
            }
            Ok(Ok(requests)) => {
                tokio::spawn(take_events(Arc::clone(&self.waiting), events));
                *channel = Some(Arc::clone(&requests));
                Ok(requests)
            }
        }
    }

    /// A call that waits from now on, until it is dropped.
    pub(super) fn begin(&self, id: &MessageId) -> Call {
        let (sender, answer) = oneshot::channel();
        let number = {
            let mut state = self.waiting.lock();
            let number = state.next;
            state.next += 1;
            state.calls.entry(id.clone()).or_default().push(Slot {
                number,
                epoch: None,
                answer: sender,
            });
            number
        };
        let ticket = Ticket {
            waiting: Arc::clone(&self.waiting),
            id: id.clone(),
            number,
        };
        Call { ticket, answer }
    }

    /// Waits for the calls under way, at the latest until `deadline`; then ends them.
    pub(super) async fn close(&self, deadline: Instant) {
        let _ = timeout_at(deadline, self.places.acquire_many(self.places_max)).await;
        self.waiting.end_all();
        if let Some(channel) = self.channel.lock().await.take() {
            let _ = timeout_at(deadline, channel.close()).await;
        }
    }
}

/// One call that waits for its reply.
pub(super) struct Call {
    ticket: Ticket,
    answer: oneshot::Receiver<Result<Incoming, RequestErrorKind>>,
}

/// Names a call.
#[derive(Clone)]
pub(super) struct Ticket {
    waiting: Arc<Waiting>,
    id: MessageId,
    number: u64,
}

impl Call {
    pub(super) fn ticket(&self) -> Ticket {
        self.ticket.clone()
    }

    /// The reply, or why none will come.
    pub(super) async fn answered(&mut self) -> Result<Incoming, RequestErrorKind> {
        (&mut self.answer)
            .await
            .unwrap_or(Err(RequestErrorKind::Closed))
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        drop(self.ticket.take());
    }
}

impl Ticket {
    /// It was sent with this epoch of the listening end, which may be gone already.
    pub(super) fn sent(&self, epoch: u64) {
        let gone = {
            let mut state = self.waiting.lock();
            let gone = state.lost.is_some_and(|lost| lost >= epoch);
            let slots = state.calls.get_mut(&self.id).into_iter().flatten();
            for slot in slots.filter(|slot| slot.number == self.number) {
                slot.epoch = Some(epoch);
            }
            gone
        };
        if gone && let Some(slot) = self.take() {
            let _ = slot.answer.send(Err(RequestErrorKind::ChannelLost));
        }
    }

    /// Takes the call out, if it waits still.
    fn take(&self) -> Option<Slot> {
        let mut state = self.waiting.lock();
        let slots = state.calls.get_mut(&self.id)?;
        let at = slots.iter().position(|slot| slot.number == self.number)?;
        let slot = slots.swap_remove(at);
        if slots.is_empty() {
            state.calls.remove(&self.id);
        }
        Some(slot)
    }
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reply(&self, incoming: &Incoming) {
        let request = incoming
            .headers
            .text(name::IN_REPLY_TO)
            .or_else(|| incoming.headers.text(name::CORRELATION_ID));
        let request = request.and_then(|id| MessageId::parse(&id));
        let found = request.and_then(|id| self.lock().calls.remove(&id));
        let Some(slots) = found else {
            tracing::debug!(reply = %incoming.id, "a reply that nobody waits for was dropped");
            return self.late.record(1.0);
        };
        for slot in slots {
            // Who has stopped waiting in this moment has had its time-out.
            let _ = slot.answer.send(Ok(incoming.clone()));
        }
    }

    /// No reply will come to what was sent with this epoch or before.
    fn lose(&self, epoch: u64) {
        let mut state = self.lock();
        state.lost = state.lost.max(Some(epoch));
        state.calls.retain(|_, slots| {
            let ended = |slot: &Slot| slot.epoch.is_some_and(|sent| sent <= epoch);
            for slot in std::mem::take(slots) {
                if ended(&slot) {
                    let _ = slot.answer.send(Err(RequestErrorKind::ChannelLost));
                } else {
                    slots.push(slot);
                }
            }
            !slots.is_empty()
        });
    }

    fn end_all(&self) {
        for slot in self.lock().calls.drain().flat_map(|(_, slots)| slots) {
            let _ = slot.answer.send(Err(RequestErrorKind::Closed));
        }
    }
}

/// Takes what the adapter tells until it has nothing more to tell.
async fn take_events(waiting: Arc<Waiting>, mut events: mpsc::Receiver<ReplyEvent>) {
    while let Some(event) = events.recv().await {
        match event {
            ReplyEvent::Lost { epoch } => waiting.lose(epoch),
            ReplyEvent::Reply(incoming) => waiting.reply(&incoming),
        }
    }
    waiting.end_all();
}
