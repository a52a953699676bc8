//! Messages that are published at a later time: topics in which every message waits equally long, so that
//! the first one of a partition is always due first. A longer wait is several of these, one after the
//! other. Everything that is needed travels with the record, so that whoever reads it can move it on.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::clock::Rng;
use crate::handling::{PublishError, PublishErrorKind};
use crate::message::{Headers, Incoming, Outgoing};
use crate::messaging::{BrokerError, BrokerErrorKind, Scheduling, TopologyMode};

use super::admin;
use super::assigned::key_of;
use super::core::{Core, lock};
use super::member::Member;
use super::mover;
use super::publish::{CopyError, Record, own_headers};
use super::topology::{self, Names};

/// The waits there are topics for, in milliseconds, ascending.
pub(super) const LEVELS: [u64; 9] = [
    1_000, 5_000, 20_000, 60_000, 300_000, 1_200_000, 3_600_000, 21_600_000, 86_400_000,
];
/// A message that lacks this little for a level takes it, as if it had come so much earlier: it saves many
/// short waits, and keeps those behind it from their time by no more than this.
const LACKING: u64 = 200;
/// The levels, in seconds, in which somebody else may have a partition: the first that will do, and longer ones
/// only where one process has all of the shorter ones.
pub(super) const AWAY: [u64; 7] = [60, 20, 5, 1, 300, 1_200, 3_600];
/// The longest time that a message is held: a hundred years, a day at a time.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

pub(super) const SCHEDULING: Scheduling =
    Scheduling::new(Duration::from_secs(1), LONGEST).durable();

/// Where a message goes when it is due.
const TO: &str = "x-later-topic";
/// When it is due, in milliseconds since 1970.
const DUE: &str = "x-later-due";
/// Set where the record has no value, and not an empty one.
const TOMBSTONE: &str = "x-later-tombstone";

/// The part of this process in moving what is due.
#[derive(Default)]
pub(super) struct Later {
    pub(super) part: Mutex<Part>,
}

/// Whether this process takes part.
#[derive(Default)]
pub(super) enum Part {
    #[default]
    NotYet,
    Taken(Arc<Member>),
    /// The broker is closed, and it does not begin again.
    Ended,
}

impl Later {
    /// Begins nothing any more. What was begun is closed with its group.
    pub(super) fn end(&self) {
        *lock(&self.part) = Part::Ended;
    }
}

/// The level in which a message waits next, and since when it counts as waiting there.
pub(super) fn place(now: u64, due: u64) -> (Duration, u64) {
    let left = due.saturating_sub(now);
    let fits = LEVELS.iter().rev().find(|level| **level <= left + LACKING);
    let level = *fits.unwrap_or(&LEVELS[0]);
    let since = now.min(due.saturating_sub(level));
    (Duration::from_millis(level), since)
}

/// The first level with partitions that are none of ours, and one of these.
pub(super) fn away<'t>(
    levels: impl Iterator<Item = (&'t str, usize, Vec<i32>)>,
    rng: &Rng,
) -> Option<(&'t str, i32)> {
    for (topic, count, ours) in levels {
        let all = 0..i32::try_from(count).ok()?;
        let others: Vec<i32> = all.filter(|one| !ours.contains(one)).collect();
        let at = rng.below(u64::try_from(others.len()).ok()?);
        if let Some(other) = others.get(usize::try_from(at).ok()?) {
            return Some((topic, *other));
        }
    }
    None
}

/// A message that waits, as its record tells.
pub(super) struct Held {
    /// The topic as it is called on the cluster.
    pub(super) topic: String,
    pub(super) due: u64,
    tombstone: bool,
    key: Option<Vec<u8>>,
    headers: Headers,
}

impl Held {
    /// `None` for a record that is none of ours.
    pub(super) fn read(incoming: &Incoming) -> Option<Self> {
        Some(Self {
            topic: incoming.headers.text(TO)?.into_owned(),
            due: incoming.headers.text(DUE)?.parse().ok()?,
            tombstone: incoming.headers.contains(TOMBSTONE),
            key: key_of(incoming),
            headers: incoming.headers.clone(),
        })
    }

    /// As it is published in the end.
    pub(super) fn own_headers(&self) -> Headers {
        let mut headers = self.headers.clone();
        for name in [TO, DUE, TOMBSTONE] {
            headers.remove(name);
        }
        headers
    }

    /// Its record in its own topic.
    pub(super) fn published<'a>(
        &'a self,
        incoming: &'a Incoming,
        headers: &'a Headers,
    ) -> Record<'a> {
        Record {
            topic: &self.topic,
            partition: None,
            key: self.key.as_deref(),
            body: (!self.tombstone).then_some(&incoming.body),
            headers,
            timestamp: None,
        }
    }

    /// Its record in a level.
    pub(super) fn waiting<'a>(
        &'a self,
        incoming: &'a Incoming,
        level: &'a str,
        since: u64,
    ) -> Record<'a> {
        Record {
            topic: level,
            partition: None,
            key: self.key.as_deref(),
            body: (!self.tombstone).then_some(&incoming.body),
            headers: &self.headers,
            timestamp: i64::try_from(since).ok(),
        }
    }
}

impl Core {
    /// The names of everything that messages for later need.
    pub(super) fn later_names(&self) -> Names {
        let prefix = self.context.prefix.as_deref();
        topology::later_names(prefix, &self.settings, &self.context.service)
    }

    /// Writes a message to the topic in which it waits first.
    pub(super) async fn schedule(
        self: &Arc<Self>,
        outgoing: Outgoing,
        due: SystemTime,
    ) -> Result<(), PublishError> {
        let wait = due.duration_since(self.context.clock.now());
        let wait = wait.unwrap_or(Duration::ZERO);
        if wait.is_zero() {
            return self.publish(outgoing).await;
        }
        if wait > LONGEST {
            let text = "no message is held for longer than 100 years";
            let kind = PublishErrorKind::Unsupported;
            return Err(PublishError::new(kind, outgoing.topic, text));
        }
        let prefix = self.context.prefix.as_deref().unwrap_or_default();
        let topic = format!("{prefix}{}", outgoing.topic);
        if self.partitions_of(&topic).is_none() {
            self.find(&topic, &outgoing).await?;
        }
        let names = self.later_names();
        let since_1970 = due.duration_since(UNIX_EPOCH).unwrap_or_default();
        // A part of a millisecond counts as a whole one: a message is never early.
        let due = u64::try_from(since_1970.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
        let mut headers = own_headers(&outgoing, due);
        headers.set(TO, topic);
        headers.set(DUE, due.to_string());
        if outgoing.kafka.tombstone {
            headers.set(TOMBSTONE, "");
        }
        let mut again = true;
        loop {
            let (level, since) = place(self.context.clock.unix_millis(), due);
            let made = self.make_levels(&names, level).await;
            made.map_err(|error| not_made(&error, &outgoing))?;
            let Some(name) = names.retry(level) else {
                let text = format!("there is no topic for a wait of {level:?}");
                let kind = PublishErrorKind::Unsupported;
                return Err(PublishError::new(kind, outgoing.topic, text));
            };
            let record = Record {
                topic: name,
                partition: None,
                key: outgoing.key.as_deref().map(str::as_bytes),
                body: (!outgoing.kafka.tombstone).then_some(&outgoing.body),
                headers: &headers,
                timestamp: i64::try_from(since).ok(),
            };
            match self.send_copy(&record).await {
                Ok(()) => return Ok(()),
                // Somebody deleted it since it was looked at.
                Err(CopyError::Missing) if again => again = false,
                Err(error) => return Err(error.into_publish_error(name, outgoing)),
            }
        }
    }

    /// Makes sure that the topics of all waits up to `longest` exist, and that this process takes part in
    /// moving what lies in them.
    pub(super) async fn make_levels(
        self: &Arc<Self>,
        names: &Names,
        longest: Duration,
    ) -> Result<(), BrokerError> {
        let wanted = names.retries.iter().filter(|(level, _)| *level <= longest);
        let wanted: Vec<&str> = wanted.map(|(_, name)| name.as_str()).collect();
        let mut missing = Vec::new();
        for name in &wanted {
            if self.partitions_of(name).is_some() {
                continue;
            }
            if self.wait_until_up().await.is_none() {
                return Err(self.not_connected());
            }
            if self.ask_for_topic(name).await?.is_none() {
                missing.push(*name);
            }
        }
        if !missing.is_empty() {
            if self.settings.topology != TopologyMode::Apply {
                let text = format!(
                    "messages for later need the topics {}, which do not exist; make them with \
                     `cleanup.policy=delete` and `retention.ms=-1`, or write `topology = \"apply\"`",
                    missing.join(", ")
                );
                return Err(self.error(BrokerErrorKind::NotFound, text));
            }
            let parts: Vec<_> = missing
                .iter()
                .map(|name| topology::later_topic(name, &self.settings))
                .collect();
            admin::make_topics(self, &parts.iter().collect::<Vec<_>>()).await?;
        }
        mover::read(self, names, &wanted);
        Ok(())
    }
}

fn not_made(error: &BrokerError, outgoing: &Outgoing) -> PublishError {
    let kind = match error.kind() {
        BrokerErrorKind::NotFound | BrokerErrorKind::Permission => PublishErrorKind::Unsupported,
        BrokerErrorKind::Unreachable
        | BrokerErrorKind::ConnectionLost
        | BrokerErrorKind::Timeout => PublishErrorKind::ChannelLost,
        _ => PublishErrorKind::Nacked,
    };
    let text = format!("it cannot be held until later: {error}");
    PublishError::new(kind, outgoing.topic.clone(), text).with_outgoing(outgoing.clone())
}

/// Whether a topic holds messages for later; see [`topology::later_names`].
pub(super) fn is_level(topic: &str) -> bool {
    let level = topic.rsplit_once(".later.").map(|(_, level)| level);
    level.is_some_and(|level| topology::parse_rung(level).is_some())
}

/// What is said to whoever wants to take a message back.
pub(super) fn kept(core: &Core, id: &impl std::fmt::Display) -> BrokerError {
    let text = format!(
        "Kafka keeps what was written, and nothing single can be taken out of a topic: `{id}` is \
         delivered when it is due; have its handler look whether it is still wanted"
    );
    core.error(BrokerErrorKind::Unsupported, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messaging::kafka::assigned::Kind;
    use crate::messaging::kafka::assigned::tests::partition;

    #[test]
    fn a_message_waits_in_the_longest_level_that_it_has_time_for() {
        let place = |left: u64| {
            let (level, since) = place(100_000_000_000, 100_000_000_000 + left);
            (level.as_secs(), 100_000_000_000 - since)
        };
        assert_eq!(place(1_000), (1, 0));
        assert_eq!(place(4_500), (1, 0));
        assert_eq!(place(7_000), (5, 0));
        assert_eq!(place(90_000_000), (86_400, 0));
        // One that lacks little counts as having come so much earlier.
        assert_eq!(place(4_900), (5, 100));
        assert_eq!(place(300), (1, 700));
        assert_eq!(place(0), (1, 1_000));
    }

    #[test]
    fn every_wait_ends_after_few_levels_and_never_early() {
        let seed = fastrand::u64(..);
        println!("INTERLINE_TEST_SEED={seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..2_000 {
            let begun = 1_700_000_000_000;
            let wait = random.u64(1..10 * 86_400_000);
            let (mut now, due, mut levels) = (begun, begun + wait, 0);
            while now < due {
                let (level, since) = place(now, due);
                let level = u64::try_from(level.as_millis()).unwrap();
                now = now.max(since + level);
                assert!(now <= due, "wait {wait}: {} ms late", now - due);
                // What reading and writing take.
                now += random.u64(0..120);
                levels += 1;
            }
            assert!(now - due <= 120, "{} ms late", now - due);
            assert!(levels <= 40, "{levels} levels for {wait} ms");
        }
    }

    #[test]
    fn a_message_that_is_not_ours_goes_to_somebody_else() {
        let rng = Rng::new();
        println!("INTERLINE_TEST_SEED={}", rng.seed());
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..200 {
            let levels = [
                ("all", 2, vec![1, 0]),
                ("some", 5, vec![0, 2]),
                ("none", 1, vec![]),
            ];
            seen.extend(away(levels.into_iter(), &rng));
        }
        assert_eq!(seen, [("some", 1), ("some", 3), ("some", 4)].into());
        let levels = [("all", 1, vec![0]), ("none", 1, vec![])];
        assert_eq!(away(levels.into_iter(), &rng), Some(("none", 0)));
        let levels = [("all", 1, vec![0]), ("gone", 0, vec![])];
        assert_eq!(away(levels.into_iter(), &rng), None);
    }

    #[tokio::test]
    async fn nobody_takes_part_any_more_once_the_broker_is_closed() {
        let (assigned, _deliveries) = partition(Kind::Source);
        let core = &assigned.member.core;
        core.later.end();
        let names = core.later_names();
        mover::read(core, &names, &["interline.later.1s"]);
        assert!(matches!(*lock(&core.later.part), Part::Ended));
        assert!(lock(&core.groups).is_empty());
    }

    #[test]
    fn a_level_is_known_by_its_name() {
        assert!(is_level("dev.interline.later.1s"));
        assert!(is_level("billing.later.24h"));
        assert!(!is_level("orders.later.sent"));
        assert!(!is_level("later.1s"));
        const { assert!(SCHEDULING.durable && !SCHEDULING.cancel) };
    }
}
