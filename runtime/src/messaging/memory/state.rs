//! What is behind the store's lock: queues, routes, the log and the timers. Consumers and connections
//! are in `flow`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::clock::{Clock, Rng, SystemClock};
use crate::handling::{PublishError, PublishErrorKind, Reason};
use crate::message::{Headers, Incoming, MessageId, Outgoing, format_time, headers::name};
use crate::messaging::Start;

use super::broker::Link;
use super::events::{EventKind, EventLog};
use super::faults::Script;
use super::flow::ConsumerEntry;
use super::queue::{
    Due, Entry, Queue, QueueSpec, attempt_in, offset, origin, read_from, with_headers,
};
use super::replies::ReplyEnd;
use super::settings::MemoryOptions;
use super::slab::Slab;
use super::store::{Activity, QueueReport};

/// Most topics whose routes are remembered. Topics can be rendered from data, so there is no end to
/// them; beyond this they are found again.
const ROUTES_MAX: usize = 4_096;
/// What a header is taken to need in the log, in bytes.
const HEADER_BYTES: usize = 64;

/// What happens when a timer ends.
pub(super) enum Timer {
    /// Messages at the head of a queue may have outlived their time.
    Expire(usize),
    /// A scheduled message is published, in the name of the connection that sent it.
    Publish(Arc<Link>, Box<Outgoing>),
    /// A message held by a fault comes into its queue.
    Release(usize, Entry),
    /// A retry comes into its queue.
    Return(usize, Arc<Incoming>),
}

impl Timer {
    fn queue(&self) -> Option<usize> {
        match self {
            Self::Expire(queue) | Self::Release(queue, _) | Self::Return(queue, _) => Some(*queue),
            Self::Publish(..) => None,
        }
    }
}

/// Where messages of a topic go.
struct Route {
    topic: Arc<str>,
    queues: Box<[usize]>,
}

/// A connection that was not closed.
pub(super) struct ConnectionEntry {
    pub(super) link: Arc<Link>,
    /// When it is made (again).
    pub(super) connect_at: Option<Instant>,
    pub(super) lost_before: bool,
}

pub(super) struct State {
    pub(super) options: MemoryOptions,
    pub(super) clock: Arc<dyn Clock>,
    /// The name under which the last process knows this broker.
    pub(super) broker: Arc<str>,
    pub(super) connections: Slab<ConnectionEntry>,
    pub(super) consumers: Slab<ConsumerEntry>,
    pub(super) queues: Slab<Queue>,
    names: BTreeMap<Arc<str>, usize>,
    /// The dead letters by number. They stay when the queue of one instance goes.
    pub(super) graves: Vec<BTreeMap<u64, Arc<Incoming>>>,
    grave_names: BTreeMap<Arc<str>, usize>,
    routes: BTreeMap<Arc<str>, Arc<Route>>,
    log: VecDeque<(Option<Arc<str>>, Arc<Incoming>)>,
    log_bytes: usize,
    pub(super) timers: BTreeMap<Due, Timer>,
    /// The timers of scheduled messages.
    pub(super) scheduled: BTreeMap<MessageId, Due>,
    /// Who listens for replies, by number.
    pub(super) reply_ends: BTreeMap<u64, ReplyEnd>,
    pub(super) script: Script,
    pub(super) events: EventLog,
    offset: u64,
    /// The source of unique numbers: timers, tags, epochs, dead letters, copies.
    serial: u64,
    pub(super) in_flight: usize,
    /// Consumers whose channel is full.
    pub(super) stalled: usize,
    pub(super) idle_waiters: usize,
    /// Something is due earlier than everything else was.
    pub(super) sooner: bool,
    /// A connection was made or ended.
    pub(super) reconnected: bool,
    /// Some consumer began, paused, failed or ended.
    pub(super) consumers_changed: bool,
}

impl State {
    pub(super) fn new(options: MemoryOptions) -> Self {
        Self {
            clock: Arc::new(SystemClock),
            broker: "memory".into(),
            connections: Slab::new(),
            consumers: Slab::new(),
            queues: Slab::new(),
            names: BTreeMap::new(),
            graves: Vec::new(),
            grave_names: BTreeMap::new(),
            routes: BTreeMap::new(),
            log: VecDeque::new(),
            log_bytes: 0,
            timers: BTreeMap::new(),
            scheduled: BTreeMap::new(),
            reply_ends: BTreeMap::new(),
            script: Script::new(Rng::with_seed(options.seed)),
            events: EventLog::new(options.events),
            offset: 0,
            serial: 0,
            reconnected: false,
            consumers_changed: false,
            in_flight: 0,
            stalled: 0,
            idle_waiters: 0,
            sooner: false,
            options,
        }
    }

    pub(super) fn serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.in_flight == 0 && self.stalled == 0
    }

    pub(super) fn activity(&self) -> Activity {
        let queues = || self.queues.iter().map(|(_, queue)| queue);
        Activity {
            ready: queues().map(Queue::ready).sum(),
            in_flight: self.in_flight,
            waiting: queues().map(|queue| queue.waiting).sum(),
            scheduled: self.scheduled.len(),
        }
    }

    pub(super) fn queue_reports(&self) -> Vec<QueueReport> {
        let queues = self.names.values().filter_map(|at| self.queues.get(*at));
        queues
            .map(|queue| QueueReport {
                name: Arc::clone(&queue.name),
                ready: queue.ready(),
                in_flight: queue.unsettled,
                waiting: queue.waiting,
                dead_letters: self.graves[queue.grave].len(),
                consumers: queue.consumers.len(),
            })
            .collect()
    }

    pub(super) fn published(&self, choose: impl Fn(&str) -> bool) -> Vec<Incoming> {
        let found = self.log.iter().map(|(_, message)| message);
        found
            .filter(|message| choose(&message.topic))
            .map(|message| read_from(message, &self.broker, &message.topic, false))
            .collect()
    }

    /// The queue called `name`.
    pub(super) fn queue_called(&self, name: &str) -> Option<usize> {
        self.names.get(name).copied()
    }

    /// The dead letters called `name`.
    pub(super) fn grave_called(&self, name: &str) -> Option<usize> {
        self.grave_names.get(name).copied()
    }

    /// Finds or makes a queue.
    ///
    /// # Errors
    /// What differs between the queue that is there and `spec`.
    pub(super) fn ensure_queue(
        &mut self,
        name: Arc<str>,
        grave_name: &str,
        prefix: Option<Arc<str>>,
        spec: QueueSpec,
        dead_letter: bool,
        start: Start,
    ) -> Result<usize, String> {
        if let Some(at) = self.queue_called(&name) {
            let queue = self.queues.get_mut(at).expect("a named queue is there");
            if queue.spec != spec {
                return Err(difference(queue, &spec));
            }
            queue.dead_letter = dead_letter;
            return Ok(at);
        }
        let earlier: Vec<_> = match start {
            Start::New => Vec::new(),
            Start::Earliest => self
                .log
                .iter()
                .filter(|(from, message)| *from == prefix && spec.pattern.matches(&message.topic))
                .map(|(_, message)| Arc::clone(message))
                .collect(),
        };
        let grave = self.grave_called(grave_name).unwrap_or_else(|| {
            self.grave_names
                .insert(grave_name.into(), self.graves.len());
            self.graves.push(BTreeMap::new());
            self.graves.len() - 1
        });
        let queue = Queue::new(Arc::clone(&name), prefix, spec, dead_letter, grave);
        let at = self.queues.insert(queue);
        self.names.insert(name, at);
        self.routes.clear();
        for message in earlier {
            self.arrive(at, message, 0, None);
        }
        Ok(at)
    }

    pub(super) fn delete_queue(&mut self, at: usize) {
        let Some(queue) = self.queues.remove(at) else {
            return;
        };
        self.names.remove(&queue.name);
        self.routes.clear();
        self.timers.retain(|_, timer| timer.queue() != Some(at));
        self.script.forget(at);
    }

    /// Publishes for a connection that is up.
    pub(super) fn publish(&mut self, link: &Link, outgoing: Outgoing) -> Result<(), PublishError> {
        use PublishErrorKind::{ChannelLost, Nacked};
        if self.script.nack() {
            return Err(self.refuse(link, Nacked, "the broker refused it (a fault)", outgoing));
        }
        self.admit(link, &outgoing)?;
        let lost = self.script.lose_confirm().then(|| outgoing.clone());
        self.distribute(link, outgoing, lost.is_none());
        match lost {
            None => Ok(()),
            Some(outgoing) => {
                let topic = outgoing.topic.clone();
                let why = "the confirmation was lost (a fault); the broker may have the message";
                Err(PublishError::new(ChannelLost, topic, why).with_outgoing(outgoing))
            }
        }
    }

    /// Whether somebody listens to the message, and has room.
    pub(super) fn admit(&mut self, link: &Link, outgoing: &Outgoing) -> Result<(), PublishError> {
        use PublishErrorKind::{Nacked, Unroutable};
        let route = self.route(&outgoing.topic);
        let mut listeners = 0;
        let mut full = None;
        for at in &route.queues {
            let queue = self.queues.get(*at).expect("a route leads to a queue");
            if queue.prefix != link.prefix {
                continue;
            }
            listeners += 1;
            let depth = queue.depth() + self.graves[queue.grave].len();
            if depth >= self.options.max_messages {
                full = Some(Arc::clone(&queue.name));
            }
        }
        if listeners == 0 && !outgoing.subscribers_optional {
            let why = "no subscription listens to it; start the subscriber first, or write \
                       `#[message(subscribers = optional)]` if that is fine";
            return Err(self.refuse(link, Unroutable, why, outgoing.clone()));
        }
        if let Some(queue) = full {
            let max = self.options.max_messages;
            let why = format!("queue `{queue}` is full with {max} messages (`max_messages`)");
            return Err(self.refuse(link, Nacked, &why, outgoing.clone()));
        }
        Ok(())
    }

    /// Brings a message to every queue that it is for.
    pub(super) fn distribute(&mut self, link: &Link, mut outgoing: Outgoing, confirmed: bool) {
        let route = self.route(&outgoing.topic);
        let ours = |state: &Self, at: usize| {
            let queue = state.queues.get(at).expect("a route leads to a queue");
            queue.prefix == link.prefix
        };
        let listeners = route.queues.iter().filter(|at| ours(self, **at)).count();
        self.events.record(|| EventKind::Published {
            instance: Arc::clone(&link.instance),
            topic: Arc::clone(&route.topic),
            id: outgoing.id.clone(),
            cause: outgoing
                .headers
                .text(name::CAUSATION_ID)
                .and_then(|cause| MessageId::parse(&cause)),
            queues: listeners,
            confirmed,
        });
        if !outgoing.headers.contains(name::MESSAGE_ID) {
            let id = outgoing.id.to_string();
            outgoing.headers.set(name::MESSAGE_ID, id);
        }
        if let Some(key) = &outgoing.key
            && !outgoing.headers.contains(name::MESSAGE_KEY)
        {
            outgoing.headers.set(name::MESSAGE_KEY, key.clone());
        }
        self.offset += 1;
        let first = route.queues.iter().find(|at| ours(self, **at));
        let queue = first.and_then(|at| self.queues.get(*at));
        let queue = queue.map_or(&route.topic, |queue| &queue.name);
        let message = Arc::new(Incoming {
            topic: Arc::clone(&route.topic),
            attempt: attempt_in(&outgoing.headers),
            body: outgoing.body,
            headers: outgoing.headers,
            key: outgoing.key.map(Arc::from),
            id: outgoing.id,
            redelivered: false,
            origin: origin(&link.name, queue, self.offset),
        });
        let priority = outgoing.priority.unwrap_or(0);
        let expires = outgoing.ttl.map(|ttl| Instant::now() + ttl);
        self.keep(link.prefix.clone(), &message);
        for at in &route.queues {
            if ours(self, *at) {
                self.arrive(*at, Arc::clone(&message), priority, expires);
                self.pump(*at);
            }
        }
    }

    pub(super) fn refuse(
        &mut self,
        link: &Link,
        kind: PublishErrorKind,
        why: &str,
        outgoing: Outgoing,
    ) -> PublishError {
        self.events.record(|| EventKind::Refused {
            instance: Arc::clone(&link.instance),
            topic: (&*outgoing.topic).into(),
            id: outgoing.id.clone(),
            reason: kind.as_str(),
        });
        PublishError::new(kind, outgoing.topic.clone(), why).with_outgoing(outgoing)
    }

    fn route(&mut self, topic: &str) -> Arc<Route> {
        if let Some(route) = self.routes.get(topic) {
            return Arc::clone(route);
        }
        let listening = self.queues.iter();
        let route = Arc::new(Route {
            topic: topic.into(),
            queues: listening
                .filter(|(_, queue)| queue.spec.pattern.matches(topic))
                .map(|(at, _)| at)
                .collect(),
        });
        if self.routes.len() >= ROUTES_MAX {
            self.routes.clear();
        }
        self.routes
            .insert(Arc::clone(&route.topic), Arc::clone(&route));
        route
    }

    /// Keeps a published message for subscriptions that begin to exist later.
    fn keep(&mut self, prefix: Option<Arc<str>>, message: &Arc<Incoming>) {
        if self.options.log_messages == 0 {
            return;
        }
        let size = |message: &Incoming| message.body.len() + HEADER_BYTES * message.headers.len();
        self.log_bytes += size(message);
        self.log.push_back((prefix, Arc::clone(message)));
        while self.log.len() > self.options.log_messages || self.log_bytes > self.options.log_bytes
        {
            let Some((_, oldest)) = self.log.pop_front() else {
                return;
            };
            self.log_bytes -= size(&oldest);
        }
    }

    /// A message comes to a queue, as the last one. The caller pumps.
    pub(super) fn arrive(
        &mut self,
        at: usize,
        message: Arc<Incoming>,
        priority: u8,
        expires: Option<Instant>,
    ) {
        let held = self.script.hold(at, message.key.as_ref());
        let queue = self.queues.get_mut(at).expect("messages come to queues");
        let entry = Entry {
            message,
            position: queue.position(),
            copy: 0,
            priority,
            redelivered: false,
            losses: 0,
            expires,
            expiry: None,
        };
        if let Some(due) = held {
            queue.waiting += 1;
            self.start_timer(due, Timer::Release(at, entry));
        } else {
            self.enqueue(at, entry);
        }
    }

    /// Puts a message among the ready ones, at its position. The caller pumps.
    pub(super) fn enqueue(&mut self, at: usize, mut entry: Entry) {
        entry.expiry = entry
            .expires
            .map(|when| self.start_timer(when, Timer::Expire(at)));
        let queue = self.queues.get_mut(at).expect("messages come to queues");
        queue.push(entry);
    }

    /// Takes the first ready message out.
    pub(super) fn take_first(&mut self, at: usize) -> Option<Entry> {
        let mut entry = self.queues.get_mut(at)?.pop()?;
        if let Some(due) = entry.expiry.take() {
            self.timers.remove(&due);
        }
        Some(entry)
    }

    /// A retry waits for its time, outside of every process.
    pub(super) fn wait(&mut self, at: usize, message: Arc<Incoming>, after: Duration) {
        let queue = self.queues.get_mut(at).expect("messages wait for queues");
        queue.waiting += 1;
        self.start_timer(Instant::now() + after, Timer::Return(at, message));
    }

    pub(super) fn start_timer(&mut self, when: Instant, timer: Timer) -> Due {
        let due = (when, self.serial());
        if self
            .timers
            .first_key_value()
            .is_none_or(|(first, _)| due < *first)
        {
            self.sooner = true;
        }
        self.timers.insert(due, timer);
        due
    }

    /// When something happens by itself next.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let timer = self.timers.first_key_value().map(|((when, _), _)| *when);
        let connections = self.connections.iter();
        let connection = connections.filter_map(|(_, connection)| connection.connect_at);
        connection.chain(timer).min()
    }

    /// Lets everything happen whose time has come.
    pub(super) fn run_due(&mut self) {
        let now = Instant::now();
        while let Some(first) = self.timers.first_entry() {
            if first.key().0 > now {
                break;
            }
            let timer = first.remove();
            let queue = timer.queue();
            match timer {
                Timer::Expire(_) => {}
                Timer::Publish(link, outgoing) => self.publish_scheduled(&link, *outgoing),
                Timer::Release(at, entry) => {
                    self.script.release(at, entry.message.key.as_ref());
                    self.leave_waiting(at);
                    self.enqueue(at, entry);
                }
                Timer::Return(at, message) => {
                    let queue = self.leave_waiting(at);
                    let (queue, id) = (Arc::clone(&queue.name), message.id.clone());
                    self.events.record(|| EventKind::Returned { queue, id });
                    self.arrive(at, message, 0, None);
                }
            }
            queue.into_iter().for_each(|at| self.pump(at));
        }
        self.connect_due(now);
    }

    fn leave_waiting(&mut self, at: usize) -> &Queue {
        let queue = self
            .queues
            .get_mut(at)
            .expect("timers go with their queues");
        queue.waiting -= 1;
        queue
    }

    /// Gives up what outlived its time at the head of a queue.
    pub(super) fn expire_head(&mut self, at: usize) {
        while let Some(queue) = self.queues.get(at).filter(|queue| queue.expiring > 0) {
            let expires = queue.first().and_then(|first| first.expires);
            if expires.is_none_or(|when| when > Instant::now()) {
                return;
            }
            let expired = self.take_first(at).expect("there is a first message");
            self.bury(at, &expired, Reason::Expired);
        }
    }

    /// Moves a message to the dead letters on the broker's own account.
    pub(super) fn bury(&mut self, at: usize, entry: &Entry, reason: Reason) {
        let serial = self.serial();
        let queue = self.queues.get_mut(at).expect("messages are in queues");
        self.events.record(|| EventKind::DeadLettered {
            queue: Arc::clone(&queue.name),
            id: entry.message.id.clone(),
            reason: reason.as_str(),
        });
        if queue.dead_letter {
            let headers = grave(&self.broker, queue, entry, reason, self.clock.now());
            let message = with_headers(&entry.message, headers);
            self.graves[queue.grave].insert(serial, Arc::new(message));
        }
    }
}

/// The headers of a message that the broker itself gives up.
fn grave(
    broker: &Arc<str>,
    queue: &Queue,
    entry: &Entry,
    reason: Reason,
    now: SystemTime,
) -> Headers {
    let message = &entry.message;
    let origin = origin(broker, &queue.name, offset(message));
    let mut headers = message.headers.clone();
    headers.set(name::DLQ_REASON, reason.as_str());
    headers.set(name::DLQ_TOPIC, message.topic.to_string());
    headers.set(name::DLQ_GROUP, queue.spec.group.to_string());
    headers.set(name::DLQ_ORIGIN, origin.to_string());
    headers.set(name::DLQ_ATTEMPTS, message.attempt);
    headers.set(name::DLQ_FAILED_AT, format_time(now));
    headers
}

pub(super) fn difference(queue: &Queue, wanted: &QueueSpec) -> String {
    let order = |spec: &QueueSpec| {
        if spec.ordered {
            "`ordered_by = key`"
        } else {
            "no order by key"
        }
    };
    let (there, wanted) = if queue.spec.ordered == wanted.ordered {
        (
            format!("`{}`", queue.spec.pattern),
            format!("`{}`", wanted.pattern),
        )
    } else {
        (order(&queue.spec).to_owned(), order(wanted).to_owned())
    };
    format!(
        "queue `{}` is there with {there}, the subscription asks for {wanted}; give it another group",
        queue.name
    )
}
