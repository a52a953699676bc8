//! One service on its part of a broker, what is known about it from outside, and the final account.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use interline::MessageId;
use interline::testing::ServerFixture;
use interline_tests::ledger::{Decision, Entry, Input, LedgerReader};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::ground::{Ground, Kind};
use crate::load::{Published, Sender};
use crate::outside::Outside;
use crate::service::{self, Service};
use crate::topics::Topics;
use crate::trouble::{LIMIT, Outcome, Trouble, ensure, until};

/// What the service may have unacknowledged: twice its concurrency of 16.
pub(crate) const PREFETCH: usize = 32;
pub(crate) const INPUT: &str = "ledger.ledger.input";
pub(crate) const INPUT_ORDERED: &str = "ordered.ledger.input";
/// What the service logs each time it has connected.
pub(crate) const CONNECTED: &str = "supervisor: connected";
/// How long a service may take to go down; its own limit and something for the machine.
pub(crate) const DRAIN: Duration = Duration::from_secs(30);
const LOG_LINES: usize = 80;

/// Where a case plays.
pub(crate) struct Scene {
    pub(crate) ground: Ground,
    pub(crate) ledger: LedgerReader,
    pub(crate) rng: fastrand::Rng,
    kind: Kind,
    seed: u64,
    subscriber: &'static str,
    queue: &'static str,
    environment: Vec<(String, String)>,
    log: PathBuf,
    _directory: TempDir,
}

/// The final account of a case.
#[derive(Debug)]
pub(crate) struct Sums {
    pub(crate) confirmed: usize,
    pub(crate) entries: Vec<Entry>,
    /// Attempts that were made again after they had come to their decision.
    pub(crate) duplicates: usize,
    pub(crate) dead: BTreeSet<u64>,
    /// All outputs, repeats included.
    pub(crate) outputs: usize,
    pub(crate) outputs_distinct: usize,
}

impl Scene {
    /// A new part of the server with a place for the outputs, and nothing running.
    pub(crate) async fn on(kind: Kind, server: &ServerFixture) -> Outcome<Self> {
        Self::with(kind, Ground::on(kind, server).await?)
    }

    /// The same on a cluster of Kafka.
    pub(crate) async fn on_cluster(url: &str) -> Outcome<Self> {
        let ground = Ground::Kafka(Arc::new(Topics::create_on(url).await?));
        Self::with(Kind::Kafka, ground)
    }

    fn with(kind: Kind, ground: Ground) -> Outcome<Self> {
        let seed = match std::env::var("INTERLINE_TEST_SEED") {
            Ok(text) => text
                .parse()
                .map_err(|_| Trouble::new("INTERLINE_TEST_SEED is not a number"))?,
            Err(_) => fastrand::u64(..),
        };
        let directory = tempfile::tempdir()?;
        let ledger = directory.path().join("ledger");
        let mut scene = Self {
            ledger: LedgerReader::new(&ledger),
            rng: fastrand::Rng::with_seed(seed),
            kind,
            seed,
            subscriber: "record",
            queue: INPUT,
            environment: Vec::new(),
            log: directory.path().join("log"),
            ground,
            _directory: directory,
        };
        scene.set("LEDGER_FILE", ledger.display());
        scene.set("INTERLINE__RUN__ONLY", "record");
        let url = scene.ground.url().to_owned();
        scene.at(&url);
        if kind != Kind::RabbitMq {
            scene.set_broker(kind);
        }
        if let Some(prefix) = scene.ground.prefix() {
            let prefix = prefix.to_owned();
            scene.set("INTERLINE__NAMING__PREFIX", prefix);
        }
        Ok(scene)
    }

    /// Sets a variable of the service's environment.
    #[allow(
        clippy::needless_pass_by_value,
        reason = "callers have numbers and texts at hand"
    )]
    pub(crate) fn set(&mut self, name: &str, value: impl ToString) {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.to_owned(), value.to_string()));
    }

    /// Has the service notice soon what is lost.
    pub(crate) fn set_broker(&mut self, kind: Kind) {
        for (key, value) in kind.settings() {
            self.set(&format!("INTERLINE__BROKERS__MAIN__{key}"), value);
        }
    }

    /// Has the service connect there.
    pub(crate) fn at(&mut self, url: &str) {
        self.set("INTERLINE__BROKERS__MAIN__URL", url);
    }

    /// Has the service keep the order of each lane.
    pub(crate) fn in_order(&mut self) {
        (self.subscriber, self.queue) = ("record_in_order", INPUT_ORDERED);
        self.set("INTERLINE__RUN__ONLY", "record_in_order");
    }

    /// Has some attempts fail; a retry waits for at most `wait`.
    pub(crate) fn with_failures(&mut self, wait: &str) {
        self.set("LEDGER_FAILURES", 1);
        let subscriber = self.subscriber.to_uppercase();
        for key in ["FIRST", "MAX"] {
            self.set(
                &format!("INTERLINE__SUBSCRIBERS__{subscriber}__RETRY__{key}"),
                wait,
            );
        }
    }

    /// Starts the service and waits until it consumes.
    pub(crate) async fn start(&self) -> Outcome<Service> {
        let mut service = self.spawn()?;
        service.ready().await?;
        Ok(service)
    }

    /// Starts the service.
    pub(crate) fn spawn(&self) -> Outcome<Service> {
        Service::spawn(&self.environment, &self.log)
    }

    /// A publisher beside the service, which comes to the broker by a way of its own.
    pub(crate) async fn sender(&self) -> Outcome<Sender> {
        self.sender_at(self.ground.url()).await
    }

    /// A publisher that connects there.
    pub(crate) async fn sender_at(&self, url: &str) -> Outcome<Sender> {
        Sender::with(self.ground.config(url)).await
    }

    /// Troubles the service under load, time and again, and checks the account: what is done twice is at most
    /// what `kind` allows for each time. The load connects to `url`.
    pub(crate) async fn survives(
        &mut self,
        url: &str,
        times: usize,
        mut trouble: impl AsyncFnMut(&mut Self) -> Outcome,
    ) -> Outcome<Sums> {
        let service = self.start().await?;
        let sender = self.sender_at(url).await?;
        let load = sender.start();
        let mut back = Vec::new();
        for _ in 0..times {
            self.progress().await?;
            self.moment(700).await;
            trouble(self).await?;
            back.push(self.progress().await?);
        }
        eprintln!("first message handled after the trouble: {back:.1?}");
        let published = load.stop().await?;
        sender.close().await;
        let sums = self.finish(service, &published).await?;
        self.repeats_at_most(&sums, times)?;
        Ok(sums)
    }

    /// Checks how much was done twice, with so many interruptions.
    pub(crate) fn repeats_at_most(&self, sums: &Sums, interruptions: usize) -> Outcome {
        let most = interruptions * self.kind.repeats_max();
        ensure(sums.duplicates <= most, || {
            format!("{} repeated attempts, {most} at most", sums.duplicates)
        })
    }

    /// A moment that the seed chooses.
    pub(crate) async fn moment(&mut self, longest_ms: u64) {
        sleep(Duration::from_millis(self.rng.u64(0..longest_ms))).await;
    }

    /// Waits until the service has noted something that it had not by now.
    pub(crate) async fn progress(&self) -> Outcome<Duration> {
        let before = self.ledger.length();
        until("the service handles messages", LIMIT, async || {
            Ok(self.ledger.length() > before)
        })
        .await
    }

    /// Waits until the broker would bring everything back after a kill.
    pub(crate) async fn all_safe(&self) -> Outcome {
        let safe = async || self.ground.is_safe().await;
        until("the broker counts its queues", LIMIT, safe)
            .await
            .map(drop)
    }

    /// Waits until retries wait on the broker.
    pub(crate) async fn delayed(&self) -> Outcome {
        let waiting = async || Ok(self.ground.has_delayed(self.queue).await);
        until("a retry waits on the broker", LIMIT, waiting)
            .await
            .map(drop)
    }

    /// Waits until everything is handled, takes the service down, and checks that every confirmed
    /// message was handled or is a dead letter, and every handled one has its output.
    pub(crate) async fn finish(&self, service: Service, published: &Published) -> Outcome<Sums> {
        let begun = Instant::now();
        let outside = self.ground.outside().await?;
        let mut waiting = vec![self.queue.to_owned()];
        waiting.extend(self.ground.delay_queues().await?);
        let mut rested = false;
        // As long as it gets on it may take its time: a load that a fault held up is a long queue.
        while !rested {
            let before = self.ledger.length();
            let settled = until("everything is handled", LIMIT, async || {
                rested = self.is_at_rest(&outside, &waiting, published).await?;
                Ok(rested || self.ledger.length() > before)
            });
            if let Err(trouble) = settled.await {
                service.terminate(DRAIN).await?;
                // The account says what is missing; that nothing moved any more says why.
                let account = self.account(&outside, published).await;
                let account = account.err().map(|account| format!("{account:?}"));
                return Err(trouble.with(&account.unwrap_or_default()));
            }
            sleep(Duration::from_millis(100)).await;
        }
        service.terminate(DRAIN).await?;
        let sums = self.account(&outside, published).await?;
        eprintln!(
            "{} confirmed, {} unknown, {} dead letters, {} attempts of which {} repeated, \
             {} outputs of which {} distinct; at rest after {:.1?}",
            sums.confirmed,
            published.unknown.len(),
            sums.dead.len(),
            sums.entries.len(),
            sums.duplicates,
            sums.outputs,
            sums.outputs_distinct,
            begun.elapsed(),
        );
        Ok(sums)
    }

    /// Whether every confirmed message came to a decision, and no queue holds anything.
    async fn is_at_rest(
        &self,
        outside: &Outside,
        queues: &[String],
        published: &Published,
    ) -> Outcome<bool> {
        let decided: BTreeSet<u64> = self
            .ledger
            .entries()?
            .into_iter()
            .filter(|entry| entry.decision != Decision::Again)
            .map(|entry| entry.n)
            .collect();
        if !published.confirmed.keys().all(|n| decided.contains(n)) {
            return Ok(false);
        }
        for queue in queues {
            let counts = outside.counts(queue).await?;
            if counts.is_none_or(|now| now.ready + now.pending > 0) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn account(&self, outside: &Outside, published: &Published) -> Outcome<Sums> {
        let entries = self.ledger.entries()?;
        let mut dead = BTreeSet::new();
        for (_, body) in outside.drain(&format!("{}.dlq", self.queue)).await? {
            dead.insert(serde_json::from_slice::<Input>(&body)?.n);
        }
        let outputs = self.ground.outputs(outside).await?;
        let outputs: Vec<String> = outputs.into_iter().map(|(id, _)| id).collect();
        account(self.subscriber, entries, dead, &outputs, published)
    }

    /// How often the service has logged that, in all its lives.
    pub(crate) fn logged(&self, text: &str) -> usize {
        service::read(&self.log).matches(text).count()
    }

    /// Ends the case: what went wrong is told with the seed and the service's log.
    pub(crate) async fn told(self, outcome: Outcome) -> Outcome {
        match outcome {
            Ok(()) => {
                self.ground.delete().await?;
                Ok(())
            }
            Err(trouble) => {
                let log = service::read(&self.log);
                let lines: Vec<&str> = log.lines().collect();
                let end = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
                Err(trouble.with(&format!(
                    "INTERLINE_TEST_SEED={}\nthe service's log ends:\n{end}",
                    self.seed
                )))
            }
        }
    }
}

/// The account of a case: every confirmed message was handled or is a dead letter, under its own
/// identity, and every handled one has its output.
pub(crate) fn account(
    subscriber: &str,
    entries: Vec<Entry>,
    dead: BTreeSet<u64>,
    outputs: &[String],
    published: &Published,
) -> Outcome<Sums> {
    let done: BTreeMap<u64, &str> = entries
        .iter()
        .filter(|entry| entry.decision == Decision::Done)
        .map(|entry| (entry.n, &*entry.id))
        .collect();
    let distinct: BTreeSet<&str> = outputs.iter().map(String::as_str).collect();

    let lost: Vec<u64> = published
        .confirmed
        .keys()
        .filter(|n| !done.contains_key(n) && !dead.contains(n))
        .copied()
        .collect();
    ensure(lost.is_empty(), || {
        let lost: Vec<String> = lost
            .iter()
            .take(20)
            .map(|n| {
                let of: Vec<_> = entries.iter().filter(|entry| entry.n == *n).collect();
                format!("{n} ({}): {of:?}", published.confirmed[n])
            })
            .collect();
        format!(
            "confirmed, and neither handled nor a dead letter: {}",
            lost.join("\n")
        )
    })?;
    let foreign: Vec<_> = entries
        .iter()
        .filter(|entry| {
            published
                .confirmed
                .get(&entry.n)
                .is_some_and(|id| *id != entry.id)
        })
        .collect();
    ensure(foreign.is_empty(), || {
        format!("handled under another identity: {foreign:?}")
    })?;
    // Subscribers of two services may have the same name.
    let name = format!("ledger.{}", subscriber);
    let expected: BTreeMap<String, u64> = done
        .iter()
        .filter_map(|(n, id)| {
            let id = MessageId::parse(id)?.derive(&name, 0);
            Some((id.to_string(), *n))
        })
        .collect();
    let without: Vec<_> = expected
        .iter()
        // Handled, and given up because its output could not be confirmed.
        .filter(|(id, n)| !distinct.contains(id.as_str()) && !dead.contains(n))
        .collect();
    ensure(without.is_empty(), || {
        format!("handled, and the output is missing: {without:?}")
    })?;
    let strange: Vec<_> = distinct
        .iter()
        .filter(|id| !expected.contains_key(**id))
        .collect();
    ensure(strange.is_empty(), || {
        format!("outputs that nothing handled has led to: {strange:?}")
    })?;
    let distinct = distinct.len();
    let attempts: BTreeSet<(u64, u32)> = entries
        .iter()
        .map(|entry| (entry.n, entry.attempt))
        .collect();
    Ok(Sums {
        confirmed: published.confirmed.len(),
        duplicates: entries.len() - attempts.len(),
        entries,
        dead,
        outputs: outputs.len(),
        outputs_distinct: distinct,
    })
}
