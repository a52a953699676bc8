//! A session at work: it reads, hands to the engine, recovers what others left, keeps what is its own.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use redis::Value;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tracing::warn;

use crate::message::headers::name;
use crate::message::{Incoming, Origin, format_time};
use crate::messaging::{
    BrokerError, ConsumerState, Delivery, Settlement, Settler, Subscription, Ticket,
};
use crate::redis::{Connection, Failure, FailureKind};

use super::answers::{self, Found};
use super::consumer::Wish;
use super::core::{Core, lock};
use super::epoch::{Epoch, parse_id};
use super::errors::broker_error;
use super::fields;
use super::lease;
use super::live;
use super::out::{Entry, Source};
use super::place::Places;
use super::scripts;
use super::settler::{StreamSettler, copied};

/// How often a reader that blocks on the server is told to come back.
const UNBLOCK_AGAIN: Duration = Duration::from_millis(50);
/// Why a message is given up that was handed out again and again.
const DELIVERY_LIMIT: &str = "delivery_limit";
/// Why a message is given up that outlived its time.
const EXPIRED: &str = "expired";

pub(super) struct Reading {
    pub(super) core: Arc<Core>,
    pub(super) subscription: Arc<Subscription>,
    pub(super) epoch: Arc<Epoch>,
    /// Its own connection: it blocks.
    pub(super) reader: Connection,
    pub(super) settler: Arc<StreamSettler>,
    pub(super) erased: Arc<dyn Settler>,
    pub(super) wish: watch::Receiver<Wish>,
    pub(super) state: watch::Sender<ConsumerState>,
    pub(super) deliveries: mpsc::Sender<Delivery>,
    pub(super) last_read: Mutex<Option<Arc<str>>>,
    pub(super) places: Places,
}

impl Reading {
    /// Works until it is to stop, and holds nothing back then.
    pub(super) async fn run(&self) -> Result<(), BrokerError> {
        let ended = tokio::select! {
            read = self.read() => read,
            () = self.deliveries.closed() => Ok(()),
            () = self.push() => Ok(()),
            Err(failure) = self.tend() => Err(failure),
            Err(failure) = self.move_due() => Err(failure),
            failure = self.keep_lease() => Err(failure),
        };
        match ended {
            Ok(()) => {
                for (tag, entry) in self.epoch.out.held() {
                    let released = self.epoch.session.release(&entry).await;
                    self.epoch.out.forget(tag);
                    if let Err(failure) = released {
                        return Err(self.error(&failure));
                    }
                }
                Ok(())
            }
            Err(failure) => Err(self.error(&failure)),
        }
    }

    pub(super) fn error(&self, failure: &Failure) -> BrokerError {
        broker_error(&self.core.context.name, failure)
    }

    pub(super) fn resume_at(&self) -> Option<String> {
        self.epoch.resume_at(lock(&self.last_read).as_ref())
    }

    /// Reads until it is to stop.
    async fn read(&self) -> Result<(), Failure> {
        let session = &self.epoch.session;
        let is_leased = session.token.is_some();
        let mut wish = self.wish.clone();
        // What this or another session was handed and did not settle comes before anything new.
        let mut unsettled = Some(Cursor::default());
        loop {
            let now = *wish.borrow_and_update();
            match now {
                Wish::Stop => return Ok(()),
                Wish::Pause => {
                    self.state.send_replace(ConsumerState::Paused);
                    // The sender outlives the task: whoever wants it to go on says so.
                    tokio::select! {
                        _ = wish.changed() => continue,
                        never = live::kept(&self.reader) => match never {},
                    }
                }
                Wish::Run | Wish::Trickle(_) => {
                    match now {
                        Wish::Trickle(most) => self.epoch.out.limit(most),
                        _ => self.epoch.out.lift(),
                    }
                    self.state.send_if_modified(|state| {
                        let changes = *state != ConsumerState::Running;
                        *state = ConsumerState::Running;
                        changes
                    });
                }
            }
            tokio::select! {
                biased;
                () = self.epoch.out.until_room() => {}
                _ = wish.changed() => continue,
                never = live::kept(&self.reader) => match never {},
            }
            if let Some(cursor) = &mut unsettled {
                if !self.recover(cursor, is_leased).await? {
                    unsettled = None;
                }
                continue;
            }
            let room = self.epoch.out.room();
            let answer = if is_leased {
                let answer = self.read_fenced(room, now, &mut wish).await?;
                if answer.is_none() {
                    unsettled = Some(Cursor::default());
                }
                answer
            } else {
                Some(self.read_blocking(room, now, &mut wish).await?)
            };
            if let Some(answer) = answer {
                for found in answers::read(answer, &session.names.retry) {
                    if found.source == Source::Stream {
                        *lock(&self.last_read) = Some(Arc::clone(&found.id));
                    }
                    self.take(found, false).await?;
                }
            }
        }
    }

    async fn read_blocking(
        &self,
        room: usize,
        now: Wish,
        wish: &mut watch::Receiver<Wish>,
    ) -> Result<Value, Failure> {
        let (session, names) = (&self.epoch.session, &self.epoch.session.names);
        let block = u64::try_from(self.core.settings.block.as_millis()).unwrap_or(u64::MAX);
        let mut command = redis::cmd("XREADGROUP");
        command
            .arg("GROUP")
            .arg(&names.group)
            .arg(&*session.consumer);
        command.arg("COUNT").arg(room).arg("BLOCK").arg(block);
        command.arg("STREAMS").arg(&names.retry).arg(&names.stream);
        command.arg(">").arg(">");
        let what = session.what();
        self.until(&what, &command, other_wish(wish, now)).await
    }

    /// Runs a command that blocks, and ends the blocking with `enough`: what it has got by then is in
    /// the answer.
    async fn until(
        &self,
        what: &str,
        command: &redis::Cmd,
        enough: impl Future<Output = ()>,
    ) -> Result<Value, Failure> {
        let mut reading = pin!(self.reader.raw(what, command));
        tokio::select! {
            answer = &mut reading => return answer,
            () = enough => {}
        }
        loop {
            let mut unblock = redis::cmd("CLIENT");
            unblock.arg("UNBLOCK").arg(self.reader.id);
            // Without the permission it takes as long as it would have blocked.
            let told = self.epoch.session.live.settle.raw(what, &unblock);
            tokio::select! {
                answer = &mut reading => return answer,
                _ = told => {}
            }
            tokio::select! {
                answer = &mut reading => return answer,
                () = sleep(UNBLOCK_AGAIN) => {}
            }
        }
    }

    /// Reads as the holder of the lease. `None` if something was released meanwhile, which comes first.
    async fn read_fenced(
        &self,
        room: usize,
        now: Wish,
        wish: &mut watch::Receiver<Wish>,
    ) -> Result<Option<Value>, Failure> {
        let (session, names) = (&self.epoch.session, &self.epoch.session.names);
        let what = session.what();
        let mut script = scripts::READ.key(&names.stream);
        script.key(&names.retry).key(&names.lease);
        script.arg(&names.group).arg(&*session.consumer);
        script.arg(session.token()).arg(room);
        let answer: Value = self.reader.run(&what, &script).await?;
        let mut parts = answers::list(answer).into_iter();
        let (Some(entries), Some(at), Some(retries_at)) =
            (parts.next(), parts.next(), parts.next())
        else {
            return Err(lost_lease());
        };
        if !matches!(&entries, Value::Array(streams) if streams.is_empty()) {
            return Ok(Some(entries));
        }
        // Nothing is there: wait until something is. This takes nothing out of the group, so that a
        // request that arrives late does no harm.
        let block = u64::try_from(self.core.settings.block.as_millis()).unwrap_or(u64::MAX);
        let (at, retries_at) = (answers::text(at), answers::text(retries_at));
        let mut command = redis::cmd("XREAD");
        command.arg("COUNT").arg(1).arg("BLOCK").arg(block);
        command.arg("STREAMS").arg(&names.stream).arg(&names.retry);
        command.arg(at.as_deref().unwrap_or("$"));
        command.arg(retries_at.as_deref().unwrap_or("$"));
        let mut released = false;
        let enough = async {
            tokio::select! {
                () = other_wish(wish, now) => {}
                () = self.epoch.released.notified() => released = true,
            }
        };
        self.until(&what, &command, enough).await?;
        Ok((!released).then_some(Value::Nil))
    }

    /// Claims what was handed out and not settled, from `cursor` on: with the lease anybody's, else
    /// what earlier sessions of this instance left. `false` when that was all.
    async fn recover(&self, cursor: &mut Cursor, anybodys: bool) -> Result<bool, Failure> {
        let room = self.epoch.out.room();
        let found = self.claim(Duration::ZERO, room, cursor, !anybodys).await?;
        let is_all = found.is_empty();
        for found in found {
            cursor.pass(&found);
            self.take(found, true).await?;
        }
        Ok(!is_all)
    }

    async fn claim(
        &self,
        idle: Duration,
        room: usize,
        cursor: &Cursor,
        only_own: bool,
    ) -> Result<Vec<Found>, Failure> {
        let (session, names) = (&self.epoch.session, &self.epoch.session.names);
        let mut script = scripts::SWEEP.key(&names.stream);
        script.key(&names.retry).key(&names.lease);
        script.arg(&names.group).arg(&*session.consumer);
        script.arg(session.token());
        script.arg(u64::try_from(idle.as_millis()).unwrap_or(u64::MAX));
        script.arg(room).arg(cursor.stream()).arg(cursor.retries());
        script.arg(i32::from(only_own));
        let answer: Value = session.live.settle.run(&session.what(), &script).await?;
        let Some((found, gone)) = answers::swept(answer) else {
            return Err(lost_lease());
        };
        if gone > 0 {
            self.trimmed(gone, "while it was being handled");
        }
        Ok(found)
    }

    /// Tells of entries that were trimmed before they were handled.
    fn trimmed(&self, count: i64, when: &str) {
        self.settler.trimmed(count);
        warn!(
            broker = %self.core.context.name,
            subscription = %self.subscription.label,
            count,
            "stream `{}` was trimmed of messages {when}; raise `max_length`, or consume faster",
            self.epoch.session.names.stream
        );
    }

    /// Takes an entry on: to the engine, or to the dead letters.
    async fn take(&self, found: Found, again: bool) -> Result<(), Failure> {
        let session = &self.epoch.session;
        let entry = Entry {
            source: found.source,
            id: found.id,
            count: found.count,
        };
        let Some(entry_fields) = found.fields else {
            self.trimmed(1, "while it was being handled");
            return self.acknowledge(&entry).await;
        };
        let read = fields::read(&self.core.settings.payload_field, entry_fields);
        let place = self.places.at(entry.source, &entry.id);
        let origin = Origin::new(Arc::clone(&self.core.context.name), place);
        let topic = match read.headers.text(name::TOPIC) {
            Some(topic) => (*topic).into(),
            None => self.subscription.topic.as_str().into(),
        };
        let mut incoming = Incoming::new(topic, read.body, read.headers, origin);
        incoming.redelivered = again;
        if entry.count > self.core.settings.delivery_limit {
            return self.give_up(&entry, &incoming, DELIVERY_LIMIT).await;
        }
        if let (Some(ttl), Some((written, _))) = (read.ttl, parse_id(&entry.id)) {
            let now = u64::try_from(session.live.now(&self.core)).unwrap_or(0);
            if written.saturating_add(ttl) <= now {
                return self.give_up(&entry, &incoming, EXPIRED).await;
            }
        }
        self.epoch.out.offer(entry, incoming);
        Ok(())
    }

    async fn acknowledge(&self, entry: &Entry) -> Result<(), Failure> {
        let session = &self.epoch.session;
        let mut command = redis::cmd("XACK");
        command.arg(session.key(entry.source));
        command.arg(&session.names.group).arg(&*entry.id);
        session.live.settle.raw(&session.what(), &command).await?;
        Ok(())
    }

    /// Moves an entry to the dead letters that the engine is not to see. Where they cannot be written it
    /// stays, is looked at again when it looks abandoned, and holds nothing else up.
    async fn give_up(
        &self,
        entry: &Entry,
        incoming: &Incoming,
        reason: &'static str,
    ) -> Result<(), Failure> {
        if !self.subscription.dead_letter {
            self.acknowledge(entry).await?;
            self.given_up(incoming, reason);
            return Ok(());
        }
        let mut headers = copied(incoming.headers.clone(), incoming);
        headers.set(name::DLQ_REASON, reason);
        headers.set(name::DLQ_ATTEMPTS, incoming.attempt);
        headers.set(name::DLQ_ORIGIN, incoming.origin.to_string());
        headers.set(name::DLQ_TOPIC, incoming.topic.to_string());
        headers.set(name::DLQ_GROUP, self.subscription.group.to_string());
        headers.set(name::DLQ_SERVICE, self.core.context.service.to_string());
        let failed_at = format_time(self.core.context.clock.now());
        headers.set(name::DLQ_FAILED_AT, failed_at);
        let payload_field = &self.core.settings.payload_field;
        let write = |add: &mut dyn FnMut(&[u8])| {
            fields::write(payload_field, &incoming.body, &headers, add);
        };
        match self.epoch.session.bury(entry, write).await {
            Ok(true) => self.given_up(incoming, reason),
            // Somebody else has it.
            Ok(false) => {}
            Err(failure) if failure.is_of_the_key() => warn!(
                broker = %self.core.context.name,
                subscription = %self.subscription.label,
                id = %incoming.id,
                reason,
                "a message cannot be given up and stays where it is: {failure}"
            ),
            Err(failure) => return Err(failure),
        }
        Ok(())
    }

    fn given_up(&self, incoming: &Incoming, reason: &'static str) {
        warn!(
            broker = %self.core.context.name,
            subscription = %self.subscription.label,
            id = %incoming.id,
            reason,
            "a message is given up before its handler sees it"
        );
        self.settler.given_up(reason);
    }

    /// Hands to the engine what it may have; returns when the engine takes nothing more.
    async fn push(&self) {
        let mut wish = self.wish.clone();
        loop {
            self.epoch.out.until_next().await;
            // What was fetched before a pause waits for its end.
            if wish.wait_for(|wish| *wish != Wish::Pause).await.is_err() {
                return;
            }
            let Ok(place) = self.deliveries.reserve().await else {
                return;
            };
            if matches!(*self.wish.borrow(), Wish::Pause | Wish::Stop) {
                // A stop ends this; a pause is waited for above.
                drop(place);
                tokio::task::yield_now().await;
                if *self.wish.borrow() == Wish::Stop {
                    std::future::pending::<()>().await;
                }
                continue;
            }
            if let Some((tag, incoming)) = self.epoch.out.next() {
                let ticket = Ticket::new(self.epoch.number, tag);
                let settlement = Settlement::new(Arc::clone(&self.erased), ticket);
                place.send(Delivery::new(incoming, settlement));
            }
        }
    }

    /// Only what keeps that ours which is out already.
    pub(super) async fn keep(&self) {
        tokio::select! {
            _ = self.keep_lease() => {}
            _ = self.renew() => {}
        }
    }

    /// Returns when the lease is lost; never where there is none.
    async fn keep_lease(&self) -> Failure {
        if self.epoch.session.token.is_none() {
            return std::future::pending().await;
        }
        match lease::keep(&self.core, &self.epoch).await {
            Ok(()) => lost_lease(),
            Err(failure) => failure,
        }
    }

    async fn tend(&self) -> Result<Infallible, Failure> {
        tokio::select! {
            end = self.renew() => end,
            end = self.sweep() => end,
            end = self.look_after() => end,
        }
    }
}

impl Reading {
    /// Claims what others left, now and then and whenever something was released.
    async fn sweep(&self) -> Result<Infallible, Failure> {
        if self.epoch.session.token.is_some() {
            // Whoever holds the lease claims everything in its order, in `read`.
            return std::future::pending().await;
        }
        loop {
            let room = self.epoch.out.room();
            if room > 0 && *self.wish.borrow() == Wish::Run {
                let idle = self.core.settings.claim_after;
                let swept = self.claim(idle, room, &Cursor::default(), false).await;
                for found in bearable(swept)?.unwrap_or_default() {
                    self.take(found, true).await?;
                }
            }
            let jitter = 0.8 + 0.4 * self.core.context.rng.unit();
            tokio::select! {
                () = self.epoch.released.notified() => {}
                () = sleep(SWEEP.mul_f64(jitter)) => {}
            }
        }
    }

    /// Tells that what is out is being handled, before anybody takes it for abandoned.
    async fn renew(&self) -> Result<Infallible, Failure> {
        loop {
            sleep(self.core.settings.claim_after / 3).await;
            for some in self.epoch.out.all().chunks(RENEWED_TOGETHER) {
                bearable(self.renew_some(some).await)?;
            }
        }
    }

    async fn renew_some(&self, some: &[(u64, Entry)]) -> Result<(), Failure> {
        let (session, names) = (&self.epoch.session, &self.epoch.session.names);
        let of = |source| some.iter().filter(move |(_, entry)| entry.source == source);
        let ordered: Vec<_> = of(Source::Stream).chain(of(Source::Retries)).collect();
        let mut script = scripts::RENEW.key(&names.stream);
        script.key(&names.retry);
        script.arg(&names.group).arg(&*session.consumer);
        script.arg(of(Source::Stream).count());
        for (_, entry) in &ordered {
            script.arg(&*entry.id);
        }
        let kept: Vec<i64> = session.live.settle.run(&session.what(), &script).await?;
        for ((tag, _), kept) in ordered.into_iter().zip(kept) {
            if kept == 0 {
                // Somebody else has it, or it was settled a moment ago.
                self.epoch.out.forget(*tag);
            }
        }
        Ok(())
    }

    async fn look_after(&self) -> Result<Infallible, Failure> {
        let (session, names) = (&self.epoch.session, &self.epoch.session.names);
        let settings = &self.core.settings;
        let what = session.what();
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        loop {
            if let Some(register) = &names.register {
                let mut script = scripts::BEAT.key(&names.stream);
                script.key(register).arg(&names.group);
                script
                    .arg(millis(settings.instance_timeout))
                    .arg(&names.begin);
                let beaten = session.live.settle.run::<i64>(&what, &script);
                bearable(beaten.await)?;
            }
            let mut script = scripts::TEND.key(&names.stream);
            script.key(&names.retry).key(&names.state);
            script.arg(&names.group).arg(&*session.consumer);
            script.arg(millis(settings.claim_after));
            script.arg(settings.max_length);
            let tended = session.live.settle.run::<(i64, i64)>(&what, &script);
            if let Some((trimmed, lag)) = bearable(tended.await)? {
                if trimmed > 0 {
                    self.trimmed(trimmed, "before they were read");
                }
                self.settler.lags_by(lag);
            }
            sleep(LOOK_AFTER.mul_f64(0.8 + 0.4 * self.core.context.rng.unit())).await;
        }
    }

    /// Moves delayed retries to where they are read, when they are due.
    async fn move_due(&self) -> Result<Infallible, Failure> {
        let (session, names) = (&self.epoch.session, &self.epoch.session.names);
        let what = session.what();
        loop {
            let mut script = scripts::MOVE.key(&names.delayed);
            script.key(&names.retry).arg(MOVED_TOGETHER);
            let moved = session.live.settle.run::<(i64, i64)>(&what, &script);
            let next = match bearable(moved.await)? {
                Some((moved, 0)) if moved > 0 => continue,
                Some((_, next)) => u64::try_from(next).map_or(MOVE, Duration::from_millis),
                None => MOVE,
            };
            tokio::select! {
                () = self.settler.delayed.notified() => {}
                () = sleep(next.clamp(Duration::from_millis(1), MOVE)) => {}
            }
        }
    }
}

/// How often entries are looked for that look abandoned.
const SWEEP: Duration = Duration::from_secs(1);
/// How often consumers, retention and position are looked at.
const LOOK_AFTER: Duration = Duration::from_secs(2);
/// How often due retries are looked for that another instance delayed.
const MOVE: Duration = Duration::from_millis(500);
/// Most retries moved at once: the server does nothing else meanwhile.
const MOVED_TOGETHER: usize = 64;
const RENEWED_TOGETHER: usize = 64;

/// How far a look at unsettled entries is.
#[derive(Default)]
struct Cursor {
    stream: Option<Arc<str>>,
    retries: Option<Arc<str>>,
}

impl Cursor {
    fn pass(&mut self, found: &Found) {
        let at = match found.source {
            Source::Stream => &mut self.stream,
            Source::Retries => &mut self.retries,
        };
        *at = Some(Arc::clone(&found.id));
    }

    fn stream(&self) -> String {
        after(self.stream.as_deref())
    }

    fn retries(&self) -> String {
        after(self.retries.as_deref())
    }
}

fn after(id: Option<&str>) -> String {
    id.map_or_else(|| "-".to_owned(), |id| format!("({id}"))
}

async fn other_wish(wish: &mut watch::Receiver<Wish>, now: Wish) {
    // The sender outlives the task.
    let _ = wish.wait_for(|wish| *wish != now).await;
}

fn lost_lease() -> Failure {
    let text = "the lease was lost to another instance";
    Failure::new(FailureKind::ConnectionLost, text)
}

/// What the server cannot do at the moment, or this user may not, is no reason to stop reading.
fn bearable<T>(outcome: Result<T, Failure>) -> Result<Option<T>, Failure> {
    match outcome {
        Ok(done) => Ok(Some(done)),
        Err(failure) if failure.kind == FailureKind::Refused => {
            tracing::debug!("{failure}; trying again");
            Ok(None)
        }
        Err(failure) => Err(failure),
    }
}
