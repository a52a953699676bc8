//! Moves messages for later on: from level to level, and to their own topics when they are due. Everybody
//! who is connected to a cluster that has such topics takes part, as a member of one group, so the work is
//! shared and goes on while anybody runs. A copy is confirmed before the original counts as finished.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tracing::{debug, warn};

use crate::handling::Reason;
use crate::message::headers::name;
use crate::message::{HeaderValue, Headers, Incoming, TopicPattern, format_time};
use crate::messaging::{Delivery, Group as Shared, Subscription, TopologyMode};

use super::admin;
use super::assigned::{key_of, letter_key};
use super::core::{Core, Link, lock};
use super::group::{Group, Role};
use super::later::{self, Held, Part};
use super::member::{Copying, Member};
use super::publish::{CopyError, Record};
use super::stuck::{STUCK_MAX, Since, Stuck};
use super::topology::{self, Names};

/// How often it is looked for topics that somebody else made.
const LOOK: Duration = Duration::from_secs(15);
/// How often what was moved is removed from where it lay.
const CLEAN: Duration = Duration::from_secs(10);
/// How many are moved at once.
const AT_ONCE: u16 = 256;
/// What is due so soon is waited for here.
const SOON: Duration = Duration::from_millis(100);
/// The longest wait before a move that failed is tried again.
const AGAIN_MAX: Duration = Duration::from_secs(5);
/// How long a topic may be missing until that is believed: a server that just came back may not know it.
const MISSING_MAX: Duration = Duration::from_secs(15);
/// Where a message waits that cannot be published now, or not by this process.
const ASIDE: Duration = Duration::from_secs(60);
const LABEL: &str = "messages for later";

/// Looks for topics of messages for later, and takes part once there are some. Ends with the connection.
pub(super) async fn look(core: Weak<Core>) {
    loop {
        let mut link = {
            let Some(core) = core.upgrade() else { return };
            if core.is_closed() {
                return;
            }
            let names = core.later_names();
            let mut there = Vec::new();
            // The shorter ones are made first.
            for (_, topic) in &names.retries {
                match core.ask_for_topic(topic).await {
                    Ok(Some(_)) => there.push(topic.as_str()),
                    Ok(None) | Err(_) => break,
                }
            }
            if !there.is_empty() {
                read(&core, &names, &there);
            }
            core.link.subscribe()
        };
        let was = link.borrow_and_update().clone();
        let changed = async {
            // The sender goes with the last one who holds the connection.
            while link.changed().await.is_ok() {
                let is = link.borrow_and_update().clone();
                if is == Link::Closed || (is == Link::Up && was != Link::Up) {
                    return;
                }
            }
        };
        tokio::select! {
            () = changed => {}
            () = sleep(LOOK) => {}
        }
    }
}

/// Has this process read these levels, among those that it reads already.
pub(super) fn read(core: &Arc<Core>, names: &Names, topics: &[&str]) {
    if core.context.read_only || core.is_closed() {
        return;
    }
    let mut part = lock(&core.later.part);
    let member = match &*part {
        Part::Ended => return,
        Part::Taken(member) => Arc::clone(member),
        Part::NotYet => {
            let member = start(core, names.clone());
            *part = Part::Taken(Arc::clone(&member));
            member
        }
    };
    member.add_retries(topics.iter().copied());
}

fn start(core: &Arc<Core>, names: Names) -> Arc<Member> {
    let topic = TopicPattern::parse("interline.later").expect("a valid topic");
    let mut subscription = Subscription::new(topic, Shared::Named(names.group.as_str().into()));
    subscription.label = LABEL.into();
    subscription.prefetch = AT_ONCE;
    let (sender, deliveries) = mpsc::channel(2 * usize::from(AT_ONCE));
    let group = Group::of(core, &names.group, Role::Later);
    let member = Member::new(core, &Arc::new(subscription), names, sender);
    group.add(&member);
    let mover = Arc::new(Mover {
        core: Arc::clone(core),
        member: Arc::clone(&member),
        group,
        moved: AtomicU64::new(0),
        told: AtomicBool::new(false),
        stuck: Mutex::default(),
    });
    tokio::spawn(run(mover, deliveries));
    member
}

struct Mover {
    core: Arc<Core>,
    member: Arc<Member>,
    group: Arc<Group>,
    moved: AtomicU64,
    /// Whether it was said that something does not go on.
    told: AtomicBool,
    /// The topics that take nothing.
    stuck: Mutex<Stuck>,
}

async fn run(mover: Arc<Mover>, mut deliveries: mpsc::Receiver<Delivery>) {
    let mut moving = FuturesUnordered::new();
    let mut cleaning = interval(CLEAN);
    cleaning.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut cleaned = 0;
    let mut link = mover.core.link.subscribe();
    let closed = async move {
        // The sender is the core's own, which the mover holds.
        let _ = link.wait_for(|link| *link == Link::Closed).await;
    };
    tokio::pin!(closed);
    loop {
        tokio::select! {
            () = &mut closed => return,
            delivery = deliveries.recv() => match delivery {
                Some(delivery) => {
                    let mover = Arc::clone(&mover);
                    moving.push(async move { mover.take(delivery).await });
                }
                None => return,
            },
            Some(()) = moving.next(), if !moving.is_empty() => {}
            _ = cleaning.tick() => {
                let moved = mover.moved.load(Ordering::Acquire);
                if moved != cleaned {
                    cleaned = moved;
                    let mover = Arc::clone(&mover);
                    tokio::spawn(async move { mover.clean().await });
                }
            }
        }
    }
}

/// Where a message is put that waits on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Where {
    /// With those of its key.
    ByKey,
    /// Where another process is likely to get it.
    Elsewhere,
}

/// What became of an attempt to move a message.
enum Moved {
    Yes,
    /// To be tried again.
    No(String),
}

impl Mover {
    /// Whether a message is still ours to move.
    fn may(&self, delivery: &Delivery) -> bool {
        delivery.settlement.is_current() && !self.member.is_stopped() && !self.core.is_closed()
    }

    /// Moves a message. One that could not be moved while it was ours is the next owner's.
    async fn take(&self, delivery: Delivery) {
        let held = Held::read(&delivery.incoming);
        let mut failures = 0;
        let mut since = Since::default();
        while self.may(&delivery) {
            let incoming = &delivery.incoming;
            let moved = match &held {
                Some(held) => self.pass_on(held, incoming, &mut since).await,
                None => self.put_away(incoming, &mut since).await,
            };
            let why = match moved {
                Moved::Yes => {
                    // One that was taken away meanwhile comes twice, with the same id.
                    if let Err(error) = delivery.settlement.done().await {
                        debug!(broker = %self.core.context.name, "{error}");
                    }
                    self.moved.fetch_add(1, Ordering::AcqRel);
                    self.told.store(false, Ordering::Release);
                    return;
                }
                Moved::No(why) => why,
            };
            if !self.told.swap(true, Ordering::AcqRel) {
                warn!(
                    broker = %self.core.context.name,
                    id = %incoming.id,
                    "a message for later does not go on: {why}; trying again"
                );
            }
            sleep(self.core.backoff(failures, AGAIN_MAX)).await;
            failures = failures.saturating_add(1);
        }
    }

    /// Moves it to its own topic if it is due, else to where it waits on.
    async fn pass_on(&self, held: &Held, incoming: &Incoming, since: &mut Since) -> Moved {
        let now = loop {
            let now = self.core.context.clock.unix_millis();
            let left = Duration::from_millis(held.due.saturating_sub(now));
            if left > SOON {
                let place = later::place(now, held.due);
                return self.hold(Some(held), incoming, place, Where::ByKey).await;
            }
            if left.is_zero() {
                break now;
            }
            sleep(left).await;
        };
        if lock(&self.stuck).is_known(&held.topic, Instant::now()) {
            // One that was tried a moment ago shows what comes of it.
            return self.put_aside(Some(held), incoming, now).await;
        }
        let headers = held.own_headers();
        let record = held.published(incoming, &headers);
        let sent = {
            let _copying = Copying::begin(&self.member);
            self.core.send_copy(&record).await
        };
        let topic = &held.topic;
        let error = match sent {
            Ok(()) => {
                lock(&self.stuck).works(topic);
                return Moved::Yes;
            }
            Err(error) => error,
        };
        let missing_for = since.missing_for(&error);
        let why = match &error {
            CopyError::Missing if missing_for > MISSING_MAX => {
                let why = format!("topic `{topic}` does not exist any more");
                self.bury(incoming, headers, Some(topic), &why).await
            }
            error if error.is_too_large() => {
                let why = format!("topic `{topic}` takes no message of this size");
                self.bury(incoming, headers, Some(topic), &why).await
            }
            error if error.is_forbidden() => {
                if lock(&self.stuck).is_news(topic, Instant::now()) {
                    warn!(
                        broker = %self.core.context.name,
                        id = %incoming.id,
                        "messages for later wait for up to a minute more: the user may not publish to \
                         `{topic}`, and who may has to move them; `later_topic` gives services topics \
                         of their own"
                    );
                }
                let place = (ASIDE, now);
                return self
                    .hold(Some(held), incoming, place, Where::Elsewhere)
                    .await;
            }
            _ => Moved::No(error.told(topic)),
        };
        let Moved::No(why) = why else {
            return Moved::Yes;
        };
        if !self.is_stuck(topic, matches!(error, CopyError::Missing), since) {
            return Moved::No(why);
        }
        self.tell_stuck(topic, incoming, &why);
        match self.put_aside(Some(held), incoming, now).await {
            Moved::Yes => Moved::Yes,
            Moved::No(also) => Moved::No(format!("{why}; {also}")),
        }
    }

    /// Keeps a record that is none of ours. Where that cannot be done, it waits on like any other.
    async fn put_away(&self, incoming: &Incoming, since: &mut Since) -> Moved {
        let now = self.core.context.clock.unix_millis();
        let kept_in = self.member.names.dead_letters.as_str();
        if lock(&self.stuck).is_known(kept_in, Instant::now()) {
            return self.put_aside(None, incoming, now).await;
        }
        let why = "it does not say where it goes and when";
        let headers = incoming.headers.clone();
        let Moved::No(why) = self.bury(incoming, headers, None, why).await else {
            lock(&self.stuck).works(kept_in);
            return Moved::Yes;
        };
        if !self.is_stuck(kept_in, false, since) {
            return Moved::No(why);
        }
        self.tell_stuck(kept_in, incoming, &why);
        match self.put_aside(None, incoming, now).await {
            Moved::Yes => Moved::Yes,
            Moved::No(also) => Moved::No(format!("{why}; {also}")),
        }
    }

    fn tell_stuck(&self, topic: &str, incoming: &Incoming, why: &str) {
        if lock(&self.stuck).is_news(topic, Instant::now()) {
            warn!(
                broker = %self.core.context.name,
                id = %incoming.id,
                "messages for later wait for a minute more, so that they hold up no others: {why}"
            );
        }
    }

    /// Lets it wait for a while, so that it holds up no others.
    async fn put_aside(&self, held: Option<&Held>, incoming: &Incoming, now: u64) -> Moved {
        self.hold(held, incoming, (ASIDE, now), Where::ByKey).await
    }

    /// Notes that a message could not be published; whether that has been so for too long to wait for it
    /// here, for this message or for all of its topic.
    fn is_stuck(&self, topic: &str, is_missing: bool, since: &mut Since) -> bool {
        let mut stuck = lock(&self.stuck);
        if *self.core.link.borrow() != Link::Up {
            // Nothing goes on, and what is due is tried at once when the cluster is back.
            since.failing = None;
            stuck.works(topic);
            return false;
        }
        let now = Instant::now();
        let of_topic = if is_missing {
            // Each of its messages waits to see whether it comes back.
            stuck.works(topic);
            false
        } else {
            stuck.fails(topic, now)
        };
        let failing = *since.failing.get_or_insert(now);
        of_topic || now.duration_since(failing) >= STUCK_MAX
    }

    /// Puts it where it waits for `level`, or for that of another one, counted from `since`. Without what it
    /// says of itself it goes on as it is.
    async fn hold(
        &self,
        held: Option<&Held>,
        incoming: &Incoming,
        (level, since): (Duration, u64),
        place: Where,
    ) -> Moved {
        let _copying = Copying::begin(&self.member);
        let names = &self.member.names;
        if let Err(error) = self.core.make_levels(names, level).await {
            return Moved::No(error.to_string());
        }
        let Some(topic) = names.retry(level) else {
            return Moved::No(format!("there is no topic for a wait of {level:?}"));
        };
        let place = match place {
            Where::Elsewhere => self.elsewhere(),
            Where::ByKey => None,
        };
        let topic = place.map_or(topic, |(topic, _)| topic);
        let key = key_of(incoming);
        let mut record = match held {
            Some(held) => held.waiting(incoming, topic, since),
            None => Record {
                topic,
                partition: None,
                key: key.as_deref(),
                body: Some(&incoming.body),
                headers: &incoming.headers,
                timestamp: i64::try_from(since).ok(),
            },
        };
        record.partition = place.map(|(_, partition)| partition);
        match self.core.send_copy(&record).await {
            Ok(()) => Moved::Yes,
            Err(error) => Moved::No(error.told(topic)),
        }
    }

    /// A level and a partition of it that another process reads, if there is one. By its key a message would
    /// come back to whoever has its partition now; and one process can have all partitions of a level.
    fn elsewhere(&self) -> Option<(&str, i32)> {
        let assigned = lock(&self.group.assigned).clone();
        let names = &self.member.names;
        let levels = later::AWAY.iter().filter_map(|level| {
            let topic = names.retry(Duration::from_secs(*level))?;
            let of_topic = assigned.iter().filter(|one| *one.topic == *topic);
            let ours = of_topic.map(|assigned| assigned.partition).collect();
            Some((topic, self.core.partitions_of(topic)?, ours))
        });
        later::away(levels, &self.core.context.rng)
    }

    /// Keeps a message that nobody can be given.
    async fn bury(
        &self,
        incoming: &Incoming,
        mut headers: Headers,
        topic: Option<&str>,
        why: &str,
    ) -> Moved {
        let _copying = Copying::begin(&self.member);
        let (core, names) = (&self.core, &self.member.names);
        headers.set(name::DLQ_REASON, Reason::OutputUnroutable.as_str());
        headers.set(name::DLQ_ERROR, why.to_owned());
        headers.set(name::DLQ_ORIGIN, incoming.origin.to_string());
        headers.set(name::DLQ_SERVICE, core.context.service.to_string());
        headers.set(name::DLQ_FAILED_AT, format_time(core.context.clock.now()));
        headers.set(name::MESSAGE_ID, incoming.id.to_string());
        if let Some(topic) = topic {
            let prefix = core.context.prefix.as_deref().unwrap_or_default();
            let shown = topic.strip_prefix(prefix).unwrap_or(topic).to_owned();
            headers.set(name::DLQ_TOPIC, shown);
        }
        if let Some(key) = &incoming.key
            && !headers.contains(name::MESSAGE_KEY)
        {
            headers.set(name::MESSAGE_KEY, HeaderValue::from(key.to_string()));
        }
        let key = letter_key(incoming);
        let record = Record {
            topic: &names.dead_letters,
            partition: None,
            key: Some(key.as_bytes()),
            body: Some(&incoming.body),
            headers: &headers,
            timestamp: None,
        };
        let mut sent = core.send_copy(&record).await;
        if matches!(sent, Err(CopyError::Missing)) && core.settings.topology == TopologyMode::Apply
        {
            let part = topology::dead_letter_topic(names, core.settings.replication);
            if let Err(error) = admin::make_topics(core, &[&part]).await {
                return Moved::No(error.to_string());
            }
            sent = core.send_copy(&record).await;
        }
        match sent {
            Ok(()) => {
                warn!(
                    broker = %core.context.name,
                    id = %incoming.id,
                    "a message for later cannot be delivered: {why}; it is kept in `{}`",
                    names.dead_letters
                );
                Moved::Yes
            }
            Err(error) => Moved::No(error.told(&names.dead_letters)),
        }
    }

    /// Removes what was moved from where it lay: nothing else ever does.
    async fn clean(&self) {
        let all = lock(&self.group.assigned).clone();
        let mut places = Vec::new();
        for assigned in all {
            let below = assigned.finished_below();
            if below > 0 {
                places.push((assigned.topic.to_string(), assigned.partition, below));
            }
        }
        if let Err(error) = admin::delete_records(&self.core, &places).await
            && !self.told.swap(true, Ordering::AcqRel)
        {
            warn!(
                broker = %self.core.context.name,
                "what was moved of the messages for later lies on: {error}"
            );
        }
    }
}
