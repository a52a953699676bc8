//! Random operations on the embedded model and on a real broker, which have to tell the same story.
//!
//! What becomes of a message is drawn from the seed, the message and how often it came, not from the
//! order of things: that is what the contract leaves open. So each message has its own history, and
//! the histories are the same on both.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{try_join, try_join_all};
use interline::message::Incoming;
use interline::message::headers::name;
use interline::messaging::{Settled, Settlement, Subscription};
use interline_tests::harness::{Case, soak};
use interline_tests::servers::Server;
use tokio::time::{sleep, timeout};

use crate::world::{Bench, LIMIT, Outcome, Process, Reader, World, message, subscription, text};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// The groups with their topics.
const PATTERNED: &[(&str, &str)] = &[("all", "t.{x}"), ("some", "t.a")];
/// The groups where a subscription has one topic.
const PLAIN: &[(&str, &str)] = &[("one", "t.a"), ("other", "t.b"), ("some", "t.a")];
/// Messages of one run.
const MESSAGES: usize = 60;
/// Runs of one seed until one has to say something.
const ATTEMPTS: usize = 3;
/// Deliveries of one message after which it is always done.
const DELIVERIES_MAX: usize = 5;

/// One comparison for each broker that is not the model.
pub(crate) fn cases() -> Vec<Case> {
    let rabbitmq = Case::new("trace::the_model_and_rabbitmq_tell_the_same", || async {
        compare_all(async || Bench::rabbitmq().await).await
    });
    let kafka = Case::new("trace::the_model_and_kafka_tell_the_same", || async {
        // Each takes one of the server's doors, of which there are few.
        let seeds = seeds(if soak() { 8 } else { 2 });
        for some in seeds.chunks(2) {
            let bench = async || Bench::kafka(true).await;
            try_join_all(some.iter().map(|seed| compare(*seed, &bench))).await?;
        }
        Outcome::Ok(())
    });
    let redis = Case::new("trace::the_model_and_redis_tell_the_same", || async {
        compare_all(async || Bench::redis().await).await
    });
    let channels = Case::new(
        "trace::the_model_and_redis_pubsub_tell_the_same",
        || async { compare_all(async || Bench::redis_pubsub().await).await },
    );
    let limit = Duration::from_secs(if soak() { 1_800 } else { 240 });
    vec![
        rabbitmq.needs(Server::RabbitMq).limit(limit),
        kafka.needs(Server::Kafka).limit(limit),
        redis.needs(Server::Redis).limit(limit),
        channels.needs(Server::Redis).limit(limit),
    ]
}

async fn compare_all(bench: impl AsyncFn() -> Result<Bench, Error>) -> Outcome {
    let seeds = seeds(if soak() { 40 } else { 3 });
    // They wait more than they work.
    for some in seeds.chunks(4) {
        try_join_all(some.iter().map(|seed| compare(*seed, &bench))).await?;
    }
    Ok(())
}

async fn compare(seed: u64, bench: &impl AsyncFn() -> Result<Bench, Error>) -> Outcome {
    println!("INTERLINE_TEST_SEED={seed}");
    let mut attempt = 1;
    loop {
        match compare_once(seed, bench().await?).await {
            Err(error) if error.is::<Moved>() && attempt < ATTEMPTS => {
                println!("seed {seed}: {error}; again");
                attempt += 1;
            }
            ended => return ended,
        }
    }
}

async fn compare_once(seed: u64, bench: Bench) -> Outcome {
    let model = World::new(Bench::memory());
    let server = World::new(bench);
    let groups = if server.has_patterns() {
        PATTERNED
    } else {
        PLAIN
    };
    // Where everything comes once, to everybody, there is one reader of each and nothing goes wrong.
    let once = server.is_pubsub();
    let told = try_join(
        story(&model, groups, seed, once),
        story(&server, groups, seed, once),
    );
    let (expected, found) = told.await?;
    for (place, expected) in &expected.histories {
        let found = found.histories.get(place);
        assert_eq!(found, Some(expected), "{place:?}, seed {seed}");
    }
    assert_eq!(found, expected, "seed {seed}");
    server.close().await
}

/// Something went to another process in a way that leaves open what comes again: nothing can be compared.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Moved(String);

/// The seeds of a run; `INTERLINE_TEST_SEED` repeats one.
fn seeds(count: u64) -> Vec<u64> {
    match std::env::var("INTERLINE_TEST_SEED") {
        Ok(seed) => vec![seed.parse().expect("INTERLINE_TEST_SEED is a number")],
        Err(_) => (0..count).map(|_| fastrand::u64(..)).collect(),
    }
}

/// What is done with one delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    DeadLetter,
    Done,
    Release,
    Retry,
}

/// One delivery of a message to a group, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Step {
    attempt: u32,
    redelivered: bool,
    topic: String,
    key: Option<String>,
    fate: Fate,
}

/// Everything that the contract fixes of one run.
#[derive(Debug, Default, PartialEq, Eq)]
struct Story {
    /// By group and message.
    histories: BTreeMap<(&'static str, String), Vec<Step>>,
    /// Per round and group, what lay among the dead letters, with its attempt.
    dead: Vec<BTreeSet<(String, u32)>>,
}

/// A group with those that read it.
struct Watched {
    group: &'static str,
    subscription: Subscription,
    readers: Vec<Reader>,
    /// Messages that are neither done nor dead.
    open: BTreeSet<String>,
    /// Where messages lay that are settled, where each lies in a place of its own.
    settled: BTreeSet<String>,
    /// See [`World::losses`]: those that took nothing with them.
    losses: u64,
    was_cut: bool,
}

impl Watched {
    /// Whether it is open what comes again, and the run says nothing.
    fn has_lost(&self, world: &World) -> bool {
        world.losses() > self.losses
    }

    /// Looks whether a message may come.
    fn admit(&self, world: &World, incoming: &Incoming) -> Result<(), Moved> {
        let id = incoming.id.as_str();
        let came = self.settled.contains(&incoming.origin.to_string());
        if !came && self.open.contains(id) {
            return Ok(());
        }
        let is_of_the_cut = self.was_cut && world.repeats_after_a_cut() && incoming.redelivered;
        assert!(
            is_of_the_cut || self.has_lost(world),
            "{id} came again after it was settled"
        );
        Err(Moved(format!("{id} came again after a loss")))
    }
}

async fn story(
    world: &World,
    topics: &[(&'static str, &str)],
    seed: u64,
    once: bool,
) -> Result<Story, Error> {
    let (one, two) = (world.process("1").await, world.process("2").await);
    let mut groups = Vec::new();
    for &(group, topic) in topics {
        let mut wanted = subscription(topic, group);
        wanted.prefetch = 4;
        let mut readers = vec![one.read(&wanted).await];
        if !once {
            readers.push(two.read(&wanted).await);
        }
        groups.push(Watched {
            group,
            subscription: wanted,
            readers,
            open: BTreeSet::new(),
            settled: BTreeSet::new(),
            losses: world.losses(),
            was_cut: false,
        });
    }
    for index in 0..MESSAGES {
        let topic = ["t.a", "t.b"][(draw(&(seed, index)) % 2) as usize];
        let mut outgoing = message(topic, &index.to_string());
        // Where a topic is a place of its own, it may not be there yet.
        outgoing.subscribers_optional = true;
        outgoing.key = (index % 3 > 0).then(|| format!("k{}", index % 3));
        for group in &mut groups {
            if group.subscription.topic.matches(topic) {
                group.open.insert(outgoing.id.to_string());
            }
        }
        one.publish(outgoing).await;
    }
    let mut story = Story::default();
    for round in 0..3 {
        for group in &mut groups {
            finish(group, (!once).then_some(seed), world, &mut story).await?;
        }
        if once {
            break;
        }
        if round == 1 {
            // Nothing is out, so that a loss changes nothing.
            world.until_kept().await?;
            world.disconnect(&one).await;
            one.until_ready().await;
            two.until_ready().await;
            for group in &mut groups {
                group.losses = world.losses();
                group.was_cut = true;
            }
        }
        for group in &mut groups {
            story.dead.push(redrive(&one, group, &story, round).await?);
        }
    }
    for group in &mut groups {
        assert!(group.open.is_empty(), "{:?} never ended", group.open);
        if group.has_lost(world) {
            return Err(Moved("something may still come again after a loss".to_owned()).into());
        }
        let mut late = Vec::new();
        for reader in &mut group.readers {
            late.extend(reader.next_unless_quiet().await);
        }
        for incoming in late {
            group.admit(world, &incoming)?;
        }
    }
    one.close().await;
    two.close().await;
    Ok(story)
}

/// Handles what comes until every message of the group is done or dead; without a seed, all is done.
async fn finish(
    group: &mut Watched,
    seed: Option<u64>,
    world: &World,
    story: &mut Story,
) -> Outcome {
    let may_move = world.is_kafka();
    while !group.open.is_empty() {
        let (incoming, settlement) = next(&mut group.readers).await;
        group.admit(world, &incoming)?;
        let id = incoming.id.to_string();
        let place = incoming.origin.to_string();
        let history = story.histories.entry((group.group, id.clone()));
        let history = history.or_default();
        let drawn = seed.filter(|_| history.len() < DELIVERIES_MAX);
        let drawn = drawn.map(|seed| draw(&(seed, group.group, &id, history.len())) % 10);
        let fate = match drawn {
            Some(0 | 1) => Fate::DeadLetter,
            Some(2) => Fate::Release,
            Some(3 | 4) => Fate::Retry,
            _ => Fate::Done,
        };
        // A partition that moves takes along what was on its way to somebody who had not looked yet.
        let released = history
            .last()
            .is_some_and(|last| last.fate == Fate::Release);
        let redelivered = incoming.redelivered && (released || !may_move);
        history.push(Step {
            attempt: incoming.attempt,
            redelivered,
            topic: incoming.topic.to_string(),
            key: incoming.key.as_deref().map(str::to_owned),
            fate,
        });
        if matches!(fate, Fate::Done | Fate::DeadLetter) {
            group.open.remove(&id);
        }
        let mut headers = incoming.headers.clone();
        let settled = match fate {
            Fate::DeadLetter => {
                headers.set(name::DLQ_REASON, "rejected");
                settlement.dead_letter(incoming, headers).await?
            }
            Fate::Done => settlement.done().await?,
            Fate::Release => settlement.release().await?,
            Fate::Retry => {
                headers.set(name::ATTEMPT, incoming.attempt + 1);
                let after = Duration::from_secs(1);
                settlement.retry(incoming, after, headers).await?
            }
        };
        if may_move && settled == Settled::Stale {
            return Err(Moved(format!("{id} was with somebody when it was taken away")).into());
        }
        assert_eq!(settled, Settled::Yes);
        if may_move && fate != Fate::Release {
            group.settled.insert(place);
        }
    }
    Ok(())
}

/// The next delivery of any of the readers.
async fn next(readers: &mut [Reader]) -> (Arc<Incoming>, Settlement) {
    let waited = timeout(LIMIT, async {
        loop {
            for reader in readers.iter_mut() {
                if let Ok(delivery) = reader.deliveries.try_recv()
                    && delivery.settlement.is_current()
                {
                    return (delivery.incoming, delivery.settlement);
                }
            }
            sleep(Duration::from_millis(2)).await;
        }
    });
    waited.await.expect("what is open comes in time")
}

/// Sends every dead letter back, except in the last round; what there was.
async fn redrive(
    process: &Process,
    group: &mut Watched,
    story: &Story,
    round: usize,
) -> Result<BTreeSet<(String, u32)>, Error> {
    let ended = story.histories.iter().filter(|((of, _), steps)| {
        *of == group.group
            && steps
                .last()
                .is_some_and(|step| step.fate == Fate::DeadLetter)
    });
    let count = ended.count();
    let letters = process.dead(&group.subscription, count).await;
    for letter in &letters {
        assert_eq!(
            letter.id.as_str(),
            format!("{}/{}", letter.topic, text(letter))
        );
    }
    if round < 2 {
        let again = |letter: &Incoming| {
            let mut headers = letter.headers.clone();
            headers.remove(name::DLQ_REASON);
            Some(headers)
        };
        let moved = process
            .dead_letters()
            .redrive(&group.subscription, count, &again)
            .await?;
        assert_eq!(moved, count);
        group
            .open
            .extend(letters.iter().map(|letter| letter.id.to_string()));
    }
    let found = letters
        .iter()
        .map(|letter| (letter.id.to_string(), letter.attempt));
    Ok(found.collect())
}

/// A number that depends on nothing but what it is drawn from.
fn draw(from: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    from.hash(&mut hasher);
    hasher.finish()
}
