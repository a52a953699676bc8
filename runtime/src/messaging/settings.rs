//! What the configuration says about a broker and about a subscriber, beside what only the broker's
//! own adapter understands.

use std::sync::Arc;
use std::time::Duration;

use crate::config::{Faults, Section, units::parse_duration};

use super::engine::BrokerLimits;
use super::options::{
    BatchOptions, BreakerOptions, BreakerPolicy, CONCURRENCY_MAX, ExchangeKind, KafkaRetry,
    QueueKind, Rate, RetryOptions, Start, TopologyMode,
};
use super::port::default_ladder;

/// The longest delay that a retry can wait on a broker.
const RUNG_MAX: Duration = Duration::from_secs(7 * 86_400);
/// Most delays of one ladder; each may need a queue of its own.
const RUNGS_MAX: usize = 32;

/// What a broker's section says for everything that uses the broker.
#[derive(Clone, Debug)]
pub(crate) struct BrokerSettings {
    pub(crate) retry: RetryOptions,
    pub(crate) dead_letter: Option<bool>,
    pub(crate) codec: Option<String>,
    pub(crate) topology: Option<TopologyMode>,
    pub(crate) ladder: Arc<[Duration]>,
    pub(crate) require_durable: bool,
    pub(crate) limits: BrokerLimits,
}

impl BrokerSettings {
    /// Reads `[brokers.NAME]`.
    pub(crate) fn read(section: &Section<'_>, faults: &mut Faults) -> Self {
        let limits = BrokerLimits::default();
        Self {
            retry: read_retry(section, faults),
            dead_letter: section.bool("dead_letter", faults),
            codec: section.string("codec", faults),
            topology: read_topology(section, faults),
            ladder: read_ladder(section, faults).unwrap_or_else(default_ladder),
            require_durable: section.bool("require_durable", faults).unwrap_or(false),
            limits: BrokerLimits {
                publish_timeout: section
                    .nonzero_duration("publish_timeout", faults)
                    .unwrap_or(limits.publish_timeout),
                publish_in_flight: section
                    .integer("publish_in_flight", 1..=1 << 20, faults)
                    .unwrap_or(limits.publish_in_flight),
                request_timeout: section
                    .nonzero_duration("request_timeout", faults)
                    .unwrap_or(limits.request_timeout),
                requests_in_flight: section
                    .integer("requests_in_flight", 1..=1 << 20, faults)
                    .unwrap_or(limits.requests_in_flight),
                message_bytes_max: section
                    .size("message_bytes_max", 1..=1 << 30, faults)
                    .and_then(|bytes| usize::try_from(bytes).ok())
                    .unwrap_or(limits.message_bytes_max),
            },
        }
    }
}

/// What `[subscribers.NAME]` says in place of the subscriber's own options.
#[derive(Clone, Debug, Default)]
pub(crate) struct SubscriberSettings {
    pub(crate) broker: Option<String>,
    pub(crate) group: Option<String>,
    pub(crate) concurrency: Option<u32>,
    pub(crate) prefetch: Option<u16>,
    pub(crate) batch_max: Option<u32>,
    pub(crate) batch_wait: Option<Duration>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) retry: RetryOptions,
    pub(crate) dead_letter: Option<bool>,
    pub(crate) rate: Option<Rate>,
    pub(crate) breaker: BreakerSettings,
    pub(crate) start: Option<Start>,
    pub(crate) topology: Option<TopologyMode>,
    pub(crate) codec: Option<String>,
    pub(crate) kafka: KafkaSettings,
    pub(crate) rabbitmq: RabbitMqSettings,
    pub(crate) redis: RedisSettings,
}

/// What only Kafka understands of it: `[subscribers.NAME.kafka]`.
#[derive(Clone, Debug, Default)]
pub(crate) struct KafkaSettings {
    pub(crate) group_id: Option<String>,
    pub(crate) pattern: Option<String>,
    pub(crate) partitions: Option<u16>,
    pub(crate) replication: Option<u16>,
    pub(crate) retry: Option<KafkaRetry>,
}

/// `[subscribers.NAME.breaker]`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct BreakerSettings {
    enabled: Option<bool>,
    options: BreakerOptions,
}

impl BreakerSettings {
    fn read(section: &Section<'_>, faults: &mut Faults) -> Self {
        let breaker = section.section("breaker", faults);
        Self {
            enabled: breaker.bool("enabled", faults),
            options: BreakerOptions {
                ratio: breaker.float("ratio", 0.001..=1.0, faults),
                minimum: breaker.integer("minimum", 1.., faults),
                window: breaker.nonzero_duration("window", faults),
                wait: breaker.nonzero_duration("wait", faults),
                max: breaker.nonzero_duration("max", faults),
            },
        }
    }

    /// The breaker of a subscriber that says `own`.
    pub(crate) fn over(&self, own: Option<BreakerOptions>) -> Option<BreakerPolicy> {
        let said = own.is_some() || self.options != BreakerOptions::UNSET;
        let enabled = self.enabled.unwrap_or(said);
        let own = own.unwrap_or_default().over(BreakerPolicy::DEFAULT);
        enabled.then(|| self.options.over(own))
    }
}

/// What only RabbitMQ understands of it: `[subscribers.NAME.rabbitmq]`.
#[derive(Clone, Debug, Default)]
pub(crate) struct RabbitMqSettings {
    pub(crate) queue: Option<String>,
    pub(crate) queue_kind: Option<QueueKind>,
    pub(crate) exchange: Option<String>,
    pub(crate) exchange_kind: Option<ExchangeKind>,
    pub(crate) binding: Option<String>,
    pub(crate) max_priority: Option<u8>,
}

/// What only Redis understands of it: `[subscribers.NAME.redis]`.
#[derive(Clone, Debug, Default)]
pub(crate) struct RedisSettings {
    pub(crate) stream: Option<String>,
    pub(crate) group: Option<String>,
}

impl SubscriberSettings {
    /// Reads `[subscribers.NAME]`.
    pub(crate) fn read(section: &Section<'_>, faults: &mut Faults) -> Self {
        let batch = section.section("batch", faults);
        let rabbitmq = section.section("rabbitmq", faults);
        let redis = section.section("redis", faults);
        let prefetch = section.integer("prefetch", 1.., faults);
        Self {
            broker: section.string("broker", faults),
            group: section.string("group", faults),
            concurrency: section.integer("concurrency", 1..=CONCURRENCY_MAX, faults),
            prefetch: rabbitmq.integer("prefetch", 1.., faults).or(prefetch),
            batch_max: batch.integer("max", 1.., faults),
            batch_wait: batch.duration("wait", .., faults),
            timeout: section.nonzero_duration("timeout", faults),
            retry: read_retry(section, faults),
            dead_letter: section.bool("dead_letter", faults),
            rate: read_rate(section, faults),
            breaker: BreakerSettings::read(section, faults),
            start: section
                .choice("start", &["new", "earliest"], faults)
                .map(|start| match start {
                    "earliest" => Start::Earliest,
                    _ => Start::New,
                }),
            topology: read_topology(section, faults),
            codec: section.string("codec", faults),
            kafka: KafkaSettings::read(&section.section("kafka", faults), faults),
            rabbitmq: RabbitMqSettings::read(&rabbitmq, faults),
            redis: RedisSettings {
                stream: redis.string("stream", faults),
                group: redis.string("group", faults),
            },
        }
    }

    /// The subscriber's batches with what is said here.
    pub(crate) fn batch(&self, own: Option<BatchOptions>) -> Option<BatchOptions> {
        let own = own?;
        Some(BatchOptions::new(
            self.batch_max.unwrap_or(own.max),
            self.batch_wait.unwrap_or(own.wait),
        ))
    }

    /// Whether anything is said about batches.
    pub(crate) fn names_batch(&self) -> bool {
        self.batch_max.is_some() || self.batch_wait.is_some()
    }
}

impl KafkaSettings {
    fn read(section: &Section<'_>, faults: &mut Faults) -> Self {
        Self {
            group_id: section.string("group_id", faults),
            pattern: section.string("pattern", faults),
            partitions: section.integer("partitions", 1.., faults),
            replication: section.integer("replication", 1.., faults),
            retry: section.choice("retry", &["in_lane", "topics"], faults).map(
                |place| match place {
                    "in_lane" => KafkaRetry::InLane,
                    _ => KafkaRetry::Topics,
                },
            ),
        }
    }
}

impl RabbitMqSettings {
    fn read(section: &Section<'_>, faults: &mut Faults) -> Self {
        Self {
            queue: section.string("queue", faults),
            queue_kind: section
                .choice("queue_kind", &["classic", "quorum"], faults)
                .map(|kind| match kind {
                    "classic" => QueueKind::Classic,
                    _ => QueueKind::Quorum,
                }),
            exchange: section.string("exchange", faults),
            exchange_kind: section
                .choice(
                    "exchange_kind",
                    &["direct", "fanout", "headers", "topic"],
                    faults,
                )
                .map(|kind| match kind {
                    "direct" => ExchangeKind::Direct,
                    "fanout" => ExchangeKind::Fanout,
                    "headers" => ExchangeKind::Headers,
                    _ => ExchangeKind::Topic,
                }),
            binding: section.string("binding", faults),
            max_priority: section.integer("max_priority", 1.., faults),
        }
    }
}

fn read_retry(section: &Section<'_>, faults: &mut Faults) -> RetryOptions {
    let retry = section.section("retry", faults);
    RetryOptions {
        attempts: retry.integer("attempts", 1.., faults),
        first: retry.duration("first", .., faults),
        max: retry.duration("max", .., faults),
        factor: retry.float("factor", 1.0..=1_000.0, faults),
    }
}

fn read_topology(section: &Section<'_>, faults: &mut Faults) -> Option<TopologyMode> {
    let mode = section.choice("topology", &["apply", "verify", "off"], faults)?;
    Some(match mode {
        "verify" => TopologyMode::Verify,
        "off" => TopologyMode::Off,
        _ => TopologyMode::Apply,
    })
}

/// `retry_ladder = ["1s", "5s", "30s"]`: ascending.
fn read_ladder(section: &Section<'_>, faults: &mut Faults) -> Option<Arc<[Duration]>> {
    const KEY: &str = "retry_ladder";
    let texts = section.strings(KEY, faults)?;
    let mut rungs: Vec<Duration> = Vec::with_capacity(texts.len());
    for text in &texts {
        let rung = match parse_duration(text) {
            Ok(rung) => rung,
            Err(why) => {
                faults.push(section.fault(KEY, format!("`{text}` {why}")));
                return None;
            }
        };
        let wrong = if rung < Duration::from_secs(1) {
            Some("must be at least 1s: shorter waits do not leave the process")
        } else if rung > RUNG_MAX {
            Some("must be at most 7d")
        } else if rungs.last().is_some_and(|last| *last >= rung) {
            Some("must be longer than the one before")
        } else {
            None
        };
        if let Some(wrong) = wrong {
            faults.push(section.fault(KEY, format!("`{text}` {wrong}")));
            return None;
        }
        rungs.push(rung);
    }
    if rungs.is_empty() || rungs.len() > RUNGS_MAX {
        let fault = section.fault(KEY, format!("must have 1 to {RUNGS_MAX} delays"));
        faults.push(fault.with_help("write for example `[\"1s\", \"10s\", \"1m\"]`"));
        return None;
    }
    Some(rungs.into())
}

/// `rate = "100/s"`, or `"5/10s"`.
fn read_rate(section: &Section<'_>, faults: &mut Faults) -> Option<Rate> {
    const KEY: &str = "rate";
    let text = section.string(KEY, faults)?;
    let rate = text.split_once('/').and_then(|(count, per)| {
        let count = count.trim().parse().ok().filter(|count| *count > 0)?;
        let per = per.trim();
        let per = if per.starts_with(|first: char| first.is_ascii_digit()) {
            parse_duration(per)
        } else {
            parse_duration(&format!("1{per}"))
        };
        let per = per.ok().filter(|per| !per.is_zero())?;
        Some(Rate::new(count, per))
    });
    if rate.is_none() {
        let fault = section.fault(KEY, format!("`{text}` is not a rate"));
        faults.push(fault.with_help("write for example `\"100/s\"` or `\"5/10s\"`"));
    }
    rate
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn faults_of(toml: &str, read: impl Fn(&Config, &mut Faults)) -> String {
        let config = Config::from_toml("interline.toml", toml).unwrap();
        let mut faults = Faults::new();
        read(&config, &mut faults);
        config.finish(&mut faults);
        faults
            .into_result()
            .map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn a_broker_is_read_with_its_defaults_in_place() {
        let toml = "[brokers.main]\nretry = { attempts = 3 }\nretry_ladder = ['2s', '1m']\n\
                    topology = 'verify'\nmessage_bytes_max = '1MiB'";
        let report = faults_of(toml, |config, faults| {
            let settings = BrokerSettings::read(&config.section("brokers.main"), faults);
            assert_eq!(settings.retry.attempts, Some(3));
            assert_eq!(
                *settings.ladder,
                [Duration::from_secs(2), Duration::from_secs(60)]
            );
            assert_eq!(settings.topology, Some(TopologyMode::Verify));
            assert_eq!(settings.limits.message_bytes_max, 1 << 20);
            assert_eq!(settings.limits.publish_in_flight, 1_024);
        });
        assert_eq!(report, "");
    }

    #[test]
    fn every_mistake_is_named() {
        let toml = "[subscribers.charge]\nconcurrency = 0\nrate = 'often'\ntimeout = '0s'\n\
                    retry = { factor = 0.5 }\nconcurency = 3\n[brokers.main]\nretry_ladder = ['5s', '1s']";
        let report = faults_of(toml, |config, faults| {
            SubscriberSettings::read(&config.section("subscribers.charge"), faults);
            BrokerSettings::read(&config.section("brokers.main"), faults);
        });
        assert_eq!(
            report,
            "6 mistakes in the configuration\n\
             interline.toml:2:1  subscribers.charge.concurrency  must be at least 1, not 0\n\
             interline.toml:3:1  subscribers.charge.rate  `often` is not a rate\n    \
                 help: write for example `\"100/s\"` or `\"5/10s\"`\n\
             interline.toml:4:1  subscribers.charge.timeout  must be more than 0s, not 0s\n\
             interline.toml:5:11  subscribers.charge.retry.factor  must be at least 1, not 0.5\n\
             interline.toml:6:1  subscribers.charge.concurency  unknown key `concurency` in [subscribers.charge]\n    \
                 help: did you mean `concurrency`?\n\
             interline.toml:8:1  brokers.main.retry_ladder  `1s` must be longer than the one before"
        );
    }

    #[test]
    fn rates_are_read_as_people_write_them() {
        for (text, count, per) in [("100/s", 100, 1), ("5/10s", 5, 10), ("3 / m", 3, 60)] {
            let config = Config::new().with("s.rate", text);
            let mut faults = Faults::new();
            let rate = read_rate(&config.section("s"), &mut faults);
            assert_eq!(rate, Some(Rate::new(count, Duration::from_secs(per))));
        }
    }
}
