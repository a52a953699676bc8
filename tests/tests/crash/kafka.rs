//! The same account on Kafka: the service is killed, the server is killed and frozen, the network
//! between them fails, and members come and go.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use interline::Config;
use interline::config::Faults;
use interline::message::TopicPattern;
use interline::messaging::kafka::Kafka;
use interline::messaging::{BrokerContext, Connected, Group, MessageBroker, Start, Subscription};
use interline::testing::{Direction, ServerFixture};
use interline_tests::harness::soak;
use interline_tests::ledger::{Decision, Input, LedgerReader};
use interline_tests::servers;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use crate::load::{Published, Sender};
use crate::scene::{self, DRAIN, PREFETCH, Sums};
use crate::service::{self, Service};
use crate::trouble::{LIMIT, Outcome, Trouble, ensure, until};

/// How often positions are committed, and how many messages that is at the pace of the load.
const COMMIT: &str = "50ms";
const PER_COMMIT: usize = 150;
/// How long a topic is quiet before it counts as read to its end.
const QUIET: Duration = Duration::from_secs(3);
const LOG_LINES: usize = 80;

struct Scene {
    url: String,
    prefix: String,
    outside: Arc<Kafka>,
    ledger: LedgerReader,
    rng: fastrand::Rng,
    seed: u64,
    environment: Vec<(String, String)>,
    log: PathBuf,
    _directory: TempDir,
}

fn subscription(topic: &'static str, group: &str) -> Outcome<Subscription> {
    let topic = TopicPattern::parse(topic)?;
    Ok(Subscription::new(topic, Group::Named(group.into())))
}

impl Scene {
    /// A prefix of its own with a topic for the outputs, and nothing running.
    async fn at(url: &str) -> Outcome<Self> {
        let seed = match std::env::var("INTERLINE_TEST_SEED") {
            Ok(text) => text
                .parse()
                .map_err(|_| Trouble::new("INTERLINE_TEST_SEED is not a number"))?,
            Err(_) => fastrand::u64(..),
        };
        let prefix = servers::unique_prefix();
        let mut context = BrokerContext::new("main", "outside", "outside-1");
        context.prefix = Some(prefix.as_str().into());
        let config = Config::new()
            .with("brokers.main.url", url)
            .with("brokers.main.partitions", 4);
        let broker = Kafka::read(
            &context,
            &config.section("brokers.main"),
            &mut Faults::new(),
        );
        let outside = Arc::new(broker.ok_or_else(|| Trouble::new("the url is a good one"))?);
        ensure(outside.connect().await? == Connected::Yes, || {
            "the server is not there".to_owned()
        })?;
        for (topic, group) in [("ledger.output", "sink"), ("ledger.input", "ledger")] {
            let topology = outside.topology(&[Arc::new(subscription(topic, group)?)]);
            outside.apply(&topology).await?;
        }
        let directory = tempfile::tempdir()?;
        let ledger = directory.path().join("ledger");
        let mut scene = Self {
            url: url.to_owned(),
            prefix: prefix.clone(),
            outside,
            ledger: LedgerReader::new(&ledger),
            rng: fastrand::Rng::with_seed(seed),
            seed,
            environment: Vec::new(),
            log: directory.path().join("log"),
            _directory: directory,
        };
        for (name, value) in [
            ("LEDGER_FILE", ledger.display().to_string()),
            ("LEDGER_DELAY_MS", "5".to_owned()),
            ("LEDGER_FAILURES", "1".to_owned()),
            ("INTERLINE__RUN__ONLY", "record".to_owned()),
            ("INTERLINE__NAMING__PREFIX", prefix),
            ("INTERLINE__BROKERS__MAIN__URL", url.to_owned()),
            ("INTERLINE__BROKERS__MAIN__PARTITIONS", "4".to_owned()),
            ("INTERLINE__BROKERS__MAIN__SESSION_TIMEOUT", "2s".to_owned()),
            (
                "INTERLINE__BROKERS__MAIN__COMMIT_INTERVAL",
                COMMIT.to_owned(),
            ),
            (
                "INTERLINE__SUBSCRIBERS__RECORD__RETRY__FIRST",
                "2s".to_owned(),
            ),
            (
                "INTERLINE__SUBSCRIBERS__RECORD__RETRY__MAX",
                "2s".to_owned(),
            ),
        ] {
            scene.set(name, value);
        }
        Ok(scene)
    }

    fn set(&mut self, name: &str, value: impl Into<String>) {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.to_owned(), value.into()));
    }

    async fn start(&self) -> Outcome<Service> {
        let mut service = Service::spawn(&self.environment, &self.log)?;
        service.ready().await?;
        Ok(service)
    }

    async fn sender(&self) -> Outcome<Sender> {
        let config = Config::new()
            .with("service.name", "ledger-load")
            .with("naming.prefix", self.prefix.as_str())
            .with("brokers.main.url", self.url.as_str());
        Sender::with(config).await
    }

    async fn moment(&mut self, longest_ms: u64) {
        sleep(Duration::from_millis(self.rng.u64(0..longest_ms))).await;
    }

    /// Waits until the service has noted something that it had not by now.
    async fn progress(&self) -> Outcome<Duration> {
        let before = self.ledger.length();
        until("the service handles messages", LIMIT, async || {
            Ok(self.ledger.length() > before)
        })
        .await
    }

    /// Waits until everything is handled, takes the service down, and checks the account.
    async fn finish(&self, service: Service, published: &Published) -> Outcome<Sums> {
        let settled = until("everything is handled", 2 * LIMIT, async || {
            let entries = self.ledger.entries()?;
            let decided: BTreeSet<u64> = entries
                .iter()
                .filter(|entry| entry.decision != Decision::Again)
                .map(|entry| entry.n)
                .collect();
            if !published.confirmed.keys().all(|n| decided.contains(n)) {
                sleep(Duration::from_millis(100)).await;
                return Ok(false);
            }
            // What nobody knows of, and the last retries.
            sleep(QUIET).await;
            Ok(self.ledger.entries()?.len() == entries.len())
        })
        .await;
        service.terminate(DRAIN).await?;
        let letters = self.outside.dead_letters();
        let letters = letters.ok_or_else(|| Trouble::new("dead letters are kept"))?;
        let wanted = subscription("ledger.input", "ledger")?;
        let mut dead = BTreeSet::new();
        for letter in letters.list(&wanted, 1_000_000).await? {
            dead.insert(serde_json::from_slice::<Input>(&letter.body)?.n);
        }
        let outputs = self.outputs().await?;
        let sums = scene::account("record", self.ledger.entries()?, dead, &outputs, published)?;
        // After the account, which says more.
        settled?;
        eprintln!(
            "{} confirmed, {} unknown, {} dead letters, {} attempts of which {} repeated, \
             {} outputs of which {} distinct",
            sums.confirmed,
            published.unknown.len(),
            sums.dead.len(),
            sums.entries.len(),
            sums.duplicates,
            sums.outputs,
            sums.outputs_distinct,
        );
        Ok(sums)
    }

    async fn outputs(&self) -> Outcome<Vec<String>> {
        let mut wanted = subscription("ledger.output", "sink")?;
        wanted.prefetch = 500;
        wanted.start = Start::Earliest;
        let (sender, mut deliveries) = mpsc::channel(1_000);
        self.outside.subscribe(Arc::new(wanted), sender).await?;
        let mut ids = Vec::new();
        let mut limit = 10 * QUIET;
        while let Ok(Some(delivery)) = timeout(limit, deliveries.recv()).await {
            ids.push(delivery.incoming.id.to_string());
            delivery.settlement.done().await?;
            limit = QUIET;
        }
        Ok(ids)
    }

    /// Ends the case: what went wrong is told with the seed and the service's log.
    async fn told(self, outcome: Outcome) -> Outcome {
        self.outside
            .disconnect(Instant::now() + Duration::from_secs(10))
            .await;
        outcome.map_err(|trouble| {
            let log = service::read(&self.log);
            let lines: Vec<&str> = log.lines().collect();
            let end = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
            trouble.with(&format!(
                "INTERLINE_TEST_SEED={}\nthe service's log ends:\n{end}",
                self.seed
            ))
        })
    }
}

fn within(sums: &Sums, interruptions: usize) -> Outcome {
    let most = interruptions * (2 * PREFETCH + PER_COMMIT);
    ensure(sums.duplicates <= most, || {
        format!("{} repeated attempts, {most} at most", sums.duplicates)
    })
}

/// SIGKILL of the service at random moments under load.
pub(crate) async fn service_killed() -> Outcome {
    let server = servers::kafka().await?;
    let mut scene = Scene::at(server.url()).await?;
    let kills = if soak() { 40 } else { 4 };
    let outcome = async {
        let mut service = scene.start().await?;
        let sender = scene.sender().await?;
        let load = sender.start();
        for _ in 0..kills {
            scene.progress().await?;
            scene.moment(700).await;
            service.kill().await?;
            service = scene.start().await?;
        }
        scene.progress().await?;
        let published = load.stop().await?;
        sender.close().await;
        let sums = scene.finish(service, &published).await?;
        within(&sums, kills)
    }
    .await;
    scene.told(outcome).await
}

/// A second instance comes and goes every second, now in order, now killed.
pub(crate) async fn members_come_and_go() -> Outcome {
    let server = servers::kafka().await?;
    let scene = Scene::at(server.url()).await?;
    let rounds = if soak() { 60 } else { 6 };
    let outcome = async {
        let service = scene.start().await?;
        let sender = scene.sender().await?;
        let load = sender.start();
        for round in 0..rounds {
            let visitor = scene.start().await?;
            sleep(Duration::from_secs(1)).await;
            if round % 2 == 0 {
                visitor.terminate(DRAIN).await?;
            } else {
                visitor.kill().await?;
            }
        }
        let published = load.stop().await?;
        sender.close().await;
        let sums = scene.finish(service, &published).await?;
        within(&sums, rounds)
    }
    .await;
    scene.told(outcome).await
}

/// kill -9 of the server under load, which then comes back.
pub(crate) async fn server_killed() -> Outcome {
    comes_back(true, if soak() { 20 } else { 2 }).await
}

/// Three servers, of which two have to acknowledge: the leader of a partition is killed under load, and what
/// it acknowledged is there without it. The others go on meanwhile.
pub(crate) async fn leader_killed() -> Outcome {
    let cluster = ServerFixture::kafka()
        .config_line("min.insync.replicas=2")
        // A server that is gone is missed after 9 s unless told.
        .config_line("broker.session.timeout.ms=3000")
        .config_line("broker.heartbeat.interval.ms=500")
        .start_cluster(3)
        .await?;
    let mut scene = Scene::at(cluster.url()).await?;
    let times = if soak() { 20 } else { 2 };
    let outcome = async {
        let service = scene.start().await?;
        let sender = scene.sender().await?;
        let load = sender.start();
        for _ in 0..times {
            let state = "every replica is in sync";
            let mut leader = None;
            until(state, 2 * LIMIT, async || {
                leader = leader_in_sync(cluster.url(), &scene.prefix, 3).await?;
                Ok(leader.is_some())
            })
            .await?;
            scene.progress().await?;
            scene.moment(700).await;
            let leader = leader.ok_or_else(|| Trouble::new("there is a leader"))?;
            let killed = &cluster.servers()[leader - 1];
            killed.kill().await?;
            let back = scene.progress().await?;
            eprintln!("leader {leader} killed: first message handled after {back:.1?}");
            // More than what was on its way.
            for _ in 0..5 {
                scene.progress().await?;
            }
            killed.restart().await?;
        }
        let published = load.stop().await?;
        sender.close().await;
        let sums = scene.finish(service, &published).await?;
        within(&sums, times)
    }
    .await;
    scene
        .told(outcome.map_err(|trouble| trouble.with(&cluster.logs())))
        .await
}

/// Who leads the first partition of the input; `None` while a topic of the case lacks replicas in sync.
async fn leader_in_sync(url: &str, prefix: &str, replicas: usize) -> Outcome<Option<usize>> {
    let servers = url.trim_start_matches("kafka://").to_owned();
    let prefix = prefix.to_owned();
    let asked = tokio::task::spawn_blocking(move || {
        let client: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", servers)
            .create()?;
        let metadata = client.fetch_metadata(None, Duration::from_secs(10))?;
        let own = metadata.topics().iter().filter(|topic| {
            topic.name().starts_with(&prefix) || topic.name().starts_with("__consumer")
        });
        let mut leader = None;
        for topic in own {
            for partition in topic.partitions() {
                if partition.isr().len() < replicas {
                    return Ok(None);
                }
                if topic.name().ends_with("ledger.input") && partition.id() == 0 {
                    leader = usize::try_from(partition.leader()).ok();
                }
            }
        }
        Ok::<_, rdkafka::error::KafkaError>(leader)
    });
    Ok(asked.await??)
}

/// SIGSTOP of the server for longer than a session under load.
pub(crate) async fn server_frozen() -> Outcome {
    comes_back(false, if soak() { 10 } else { 2 }).await
}

async fn comes_back(killed: bool, times: usize) -> Outcome {
    let server = ServerFixture::kafka().start().await?;
    let mut scene = Scene::at(server.url()).await?;
    let outcome = async {
        let service = scene.start().await?;
        let sender = scene.sender().await?;
        let load = sender.start();
        for _ in 0..times {
            scene.progress().await?;
            scene.moment(700).await;
            if killed {
                server.kill().await?;
                server.restart().await?;
            } else {
                server.pause().await?;
                sleep(Duration::from_secs(4)).await;
                server.resume().await?;
            }
            let back = scene.progress().await?;
            eprintln!("first message handled after {back:.1?}");
        }
        let published = load.stop().await?;
        sender.close().await;
        let sums = scene.finish(service, &published).await?;
        within(&sums, times)
    }
    .await;
    scene
        .told(outcome.map_err(|trouble| trouble.with(&server.logs())))
        .await
}

/// The network between service and server resets, stalls and swallows.
pub(crate) async fn network_fails() -> Outcome {
    let (proxy, proxied) = servers::kafka_proxy().await?;
    let direct = servers::kafka().await?;
    let mut scene = Scene::at(direct.url()).await?;
    scene.set("INTERLINE__BROKERS__MAIN__URL", proxied);
    let rounds = if soak() { 10 } else { 1 };
    let outcome = async {
        let service = scene.start().await?;
        // The load has a way of its own.
        let sender = scene.sender().await?;
        let load = sender.start();
        for _ in 0..rounds {
            for fault in ["reset", "cut", "to_server", "to_client", "black_hole"] {
                scene.progress().await?;
                scene.moment(300).await;
                match fault {
                    "reset" => drop(proxy.reset_all().await),
                    "cut" => proxy.cut_after(scene.rng.u64(1..20_000)),
                    "to_server" => proxy.stall(Direction::ToServer, true),
                    "to_client" => proxy.stall(Direction::ToClient, true),
                    _ => proxy.black_hole(true),
                }
                sleep(Duration::from_secs(4)).await;
                proxy.restore().await?;
                let back = scene.progress().await?;
                eprintln!("{fault}: handling again after {back:.1?}");
            }
        }
        let published = load.stop().await?;
        sender.close().await;
        let sums = scene.finish(service, &published).await?;
        within(&sums, 5 * rounds)
    }
    .await;
    scene.told(outcome).await
}
