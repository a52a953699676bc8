//! `[brokers.NAME]` of kind `kafka`.

mod address;
mod clients;
mod tls;

use std::time::Duration;

use crate::config::{Faults, Secret, Section};
use crate::messaging::{BrokerErrorKind, TopologyMode};

use self::address::parse;
use self::tls::Tls;

use super::properties;

const URL_DEFAULT: &str = "kafka://localhost:9092";
const PORT_DEFAULT: u16 = 9092;
const SECONDS_10: Duration = Duration::from_secs(10);
/// Partitions of a topic that is made here, unless configured.
const PARTITIONS_DEFAULT: i32 = 6;
const NEEDS_FEATURE: &str = "asks for TLS or a password, which this build leaves out; add the feature `kafka-tls` of interline";

/// How the cluster is reached, and what is shared by everything on it.
///
/// | key | default | |
/// |---|---|---|
/// | `url` | `kafka://localhost:9092` | several servers with commas; `kafkas://` for TLS; read again when a client is made anew |
/// | `username`, `password` | those of the url | SASL; secrets may come from a file or a variable |
/// | `sasl` | `plain` | or `scram-sha-256`, `scram-sha-512` |
/// | `tls.ca_file` | the system's | PEM |
/// | `tls.certificate_file`, `tls.key_file` | | PEM, for a client certificate |
/// | `topology` | `apply` | what is done about a topic that a publish finds missing |
/// | `partitions`, `replication` | 6, the cluster's own default | of topics that are made here |
/// | `retry_topic` | `{topic}.{group}.retry.{rung}` | must hold `.retry.{rung}` |
/// | `dead_letter_topic` | `{topic}.{group}.dlq` | must end with `.dlq` |
/// | `later_topic` | `interline.later.{rung}` | of messages for later; may hold `{service}`, and must end with `.later.{rung}` |
/// | `group_protocol` | `classic` | or `consumer`, of Kafka 4 |
/// | `instance_id` | | static membership; unique per instance, the same after a restart |
/// | `session_timeout` | `45s` | |
/// | `max_poll_interval` | `5m` | |
/// | `commit_interval` | `500ms` | |
/// | `revoke_wait` | `5s` | how long a partition that moves waits for what is being handled |
/// | `stall_timeout` | `60s` | a partition that has messages and gives none for this long is read anew |
/// | `compression` | `lz4` | or `none`, `gzip`, `snappy` |
/// | `connect_timeout` | `10s` | |
/// | `on_terminal` | `fail` | wrong credentials and the like at start: give up, or `retry` |
/// | `librdkafka` | | any property of librdkafka that is not one of ours |
#[derive(Clone, Debug)]
pub(super) struct Settings {
    url: Secret,
    username: Option<String>,
    password: Option<Secret>,
    sasl: &'static str,
    tls: Tls,
    pub(super) topology: TopologyMode,
    pub(super) partitions: i32,
    /// -1 for the cluster's own default.
    pub(super) replication: i32,
    pub(super) retry_topic: String,
    pub(super) dead_letter_topic: String,
    pub(super) later_topic: String,
    new_protocol: bool,
    instance_id: Option<String>,
    session_timeout: Duration,
    max_poll_interval: Duration,
    pub(super) commit_interval: Duration,
    pub(super) revoke_wait: Duration,
    pub(super) stall_timeout: Duration,
    compression: &'static str,
    pub(super) connect_timeout: Duration,
    pub(super) retry_terminal: bool,
    properties: Vec<(String, String)>,
}

/// A mistake in words, with its kind.
type Wrong = (BrokerErrorKind, String);

impl Settings {
    /// Reads the section; what is wrong goes to `faults`.
    pub(super) fn read(section: &Section<'_>, faults: &mut Faults) -> Self {
        let url = section.secret("url", faults);
        let url_key = format!("{}.url", section.path());
        let topology = match section.choice("topology", &["apply", "verify", "off"], faults) {
            Some("verify") => TopologyMode::Verify,
            Some("off") => TopologyMode::Off,
            _ => TopologyMode::Apply,
        };
        let text = |key: &str, faults: &mut Faults, default: &str| {
            section
                .string(key, faults)
                .unwrap_or_else(|| default.to_owned())
        };
        let mechanisms = ["plain", "scram-sha-256", "scram-sha-512"];
        let compressions = ["lz4", "none", "gzip", "snappy"];
        let millis = |from: u64, to: u64| Duration::from_millis(from)..=Duration::from_millis(to);
        let new_protocol =
            section.choice("group_protocol", &["classic", "consumer"], faults) == Some("consumer");
        let settings = Self {
            url: url.unwrap_or_else(|| Secret::literal(&url_key, URL_DEFAULT)),
            username: section.string("username", faults),
            password: section.secret("password", faults),
            sasl: section
                .choice("sasl", &mechanisms, faults)
                .unwrap_or("plain"),
            tls: Tls::read(&section.section("tls", faults), faults),
            topology,
            partitions: section
                .integer::<i32>("partitions", 1..=10_000, faults)
                .unwrap_or(PARTITIONS_DEFAULT),
            replication: section
                .integer::<i32>("replication", 1..=100, faults)
                .unwrap_or(-1),
            retry_topic: text("retry_topic", faults, "{topic}.{group}.retry.{rung}"),
            dead_letter_topic: text("dead_letter_topic", faults, "{topic}.{group}.dlq"),
            later_topic: text("later_topic", faults, "interline.later.{rung}"),
            new_protocol,
            instance_id: section.string("instance_id", faults),
            session_timeout: section
                .duration("session_timeout", millis(1_000, 3_600_000), faults)
                .unwrap_or(Duration::from_secs(45)),
            max_poll_interval: section
                .duration("max_poll_interval", millis(1_000, 86_400_000), faults)
                .unwrap_or(Duration::from_secs(300)),
            commit_interval: section
                .duration("commit_interval", millis(10, 60_000), faults)
                .unwrap_or(Duration::from_millis(500)),
            revoke_wait: section
                .duration("revoke_wait", millis(0, 300_000), faults)
                .unwrap_or(Duration::from_secs(5)),
            stall_timeout: section
                .duration("stall_timeout", millis(1_000, 86_400_000), faults)
                .unwrap_or(Duration::from_secs(60)),
            compression: section
                .choice("compression", &compressions, faults)
                .unwrap_or("lz4"),
            connect_timeout: section
                .nonzero_duration("connect_timeout", faults)
                .unwrap_or(SECONDS_10),
            retry_terminal: section.choice("on_terminal", &["fail", "retry"], faults)
                == Some("retry"),
            properties: properties::read(
                &section.section("librdkafka", faults),
                new_protocol,
                faults,
            ),
        };
        settings.check(section, faults);
        settings
    }

    fn check(&self, section: &Section<'_>, faults: &mut Faults) {
        if self.new_protocol && section.contains("session_timeout") {
            let message = "is the server's business with `group_protocol = \"consumer\"`";
            let fault = section.fault("session_timeout", message);
            faults.push(fault.with_help(
                "leave it out; the cluster's `group.consumer.session.timeout.ms` holds",
            ));
        }
        if self.username.is_some() && cfg!(not(feature = "kafka-tls")) {
            faults.push(section.fault("username", NEEDS_FEATURE));
        }
        for (key, template, needed) in [
            (
                "retry_topic",
                &self.retry_topic,
                &["{topic}", "{group}", "{rung}"][..],
            ),
            (
                "dead_letter_topic",
                &self.dead_letter_topic,
                &["{topic}", "{group}"],
            ),
        ] {
            let missing = needed.iter().find(|part| !template.contains(**part));
            if let Some(missing) = missing {
                let message =
                    format!("lacks `{missing}`, so that two subscriptions would share a topic");
                faults.push(section.fault(key, message));
            }
        }
        // Subscriptions to patterns know by this what they must not read: their own dead letters would
        // come back for ever, and those of other services are not theirs.
        for (key, known_by, fits, example) in [
            (
                "retry_topic",
                "hold `.retry.{rung}`",
                self.retry_topic.contains(".retry.{rung}"),
                "retries.{group}.{topic}.retry.{rung}",
            ),
            (
                "dead_letter_topic",
                "end with `.dlq`",
                self.dead_letter_topic.ends_with(".dlq"),
                "dead.{group}.{topic}.dlq",
            ),
            (
                "later_topic",
                "end with `.later.{rung}`",
                self.later_topic.ends_with(".later.{rung}"),
                "{service}.later.{rung}",
            ),
        ] {
            if !fits {
                let message = format!("does not {known_by}, by which such a topic is known");
                let fault = section.fault(key, message);
                faults.push(fault.with_help(format!("write for example `{example}`")));
            }
        }
        // A secret in a file or a variable may appear only later; what is written out is checked now.
        if let Ok(url) = self.url.read()
            && let Err((_, message)) = parse(url.expose())
        {
            let fault = section.fault("url", message);
            faults.push(fault.with_help("write for example `kafka://one:9092,two:9092`"));
        }
    }

    /// How long a partition that is to be given up waits for its handlers, and again for its last commit. Both
    /// have to fit between two polls, or the group goes on without this member.
    pub(super) fn revoke_bound(&self) -> Duration {
        let session = if self.new_protocol {
            self.revoke_wait
        } else {
            self.session_timeout / 2
        };
        self.revoke_wait
            .min(session)
            .min(self.max_poll_interval / 3)
    }

    /// Whether we show the server a certificate.
    pub(super) fn has_certificate(&self) -> bool {
        self.tls.certificate_file.is_some()
    }

    /// The servers, for people: no credentials.
    pub(super) fn place(&self) -> String {
        let url = self.url.read().ok();
        let address = url.and_then(|url| parse(url.expose()).ok());
        address.map_or_else(|| "the cluster".to_owned(), |address| address.servers)
    }

    /// Who the cluster is told we are, for people.
    pub(super) fn user(&self) -> Option<String> {
        let url = self.url.read().ok();
        let address = url.and_then(|url| parse(url.expose()).ok());
        self.username
            .clone()
            .or_else(|| address.and_then(|address| address.username))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn read(config: &Config) -> (Settings, Vec<String>) {
        let mut faults = Faults::new();
        let settings = Settings::read(&config.section("brokers.main"), &mut faults);
        let faults = faults
            .iter()
            .map(|fault| format!("{} {}", fault.key(), fault.message()))
            .collect();
        (settings, faults)
    }

    #[test]
    fn nothing_written_means_the_server_on_this_machine() {
        let (settings, faults) = read(&Config::new());
        assert_eq!(faults, [""; 0]);
        assert_eq!(settings.place(), "localhost:9092");
        let member = settings.member("billing", "billing").unwrap();
        let said = |key: &str| member.get(key).unwrap_or_default().to_owned();
        assert_eq!(said("enable.auto.offset.store"), "false");
        assert_eq!(said("enable.auto.commit"), "false");
        assert_eq!(said("partition.assignment.strategy"), "cooperative-sticky");
        assert_eq!(said("security.protocol"), "plaintext");
        let producer = settings.producer("billing").unwrap();
        assert_eq!(
            (producer.get("acks"), producer.get("partitioner")),
            (Some("all"), Some("murmur2_random"))
        );
        member.create_native_config().unwrap();
        producer.create_native_config().unwrap();
    }

    #[test]
    fn several_servers_and_their_ports() {
        let address = parse("kafka://one,two:9093,[::1]:9094/").unwrap();
        assert_eq!(address.servers, "one:9092,two:9093,[::1]:9094");
        for bad in [
            "amqp://one",
            "kafka://",
            "kafka://one:x",
            "kafka://one,,two",
            "kafka://o ne",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[cfg(feature = "kafka-tls")]
    #[test]
    fn credentials_become_sasl_and_are_not_told() {
        let config = Config::new()
            .with("brokers.main.url", "kafkas://app:p%40ss@one:9093")
            .with("brokers.main.sasl", "scram-sha-512");
        let (settings, faults) = read(&config);
        assert_eq!(faults, [""; 0]);
        let client = settings.client("billing").unwrap();
        assert_eq!(client.get("sasl.password"), Some("p@ss"));
        assert_eq!(client.get("sasl.mechanism"), Some("SCRAM-SHA-512"));
        assert_eq!(client.get("security.protocol"), Some("sasl_ssl"));
        assert_eq!(settings.place(), "one:9093");
        assert_eq!(settings.user().as_deref(), Some("app"));
        assert!(!format!("{settings:?}").contains("ss@one"));
    }

    #[cfg(not(feature = "kafka-tls"))]
    #[test]
    fn tls_without_its_feature_says_which_one_to_add() {
        let (_, faults) = read(&Config::new().with("brokers.main.url", "kafkas://one"));
        assert!(
            faults[0].contains("add the feature `kafka-tls`"),
            "{faults:?}"
        );
    }

    #[test]
    fn what_contradicts_the_new_protocol_is_refused_by_name() {
        let config = Config::new()
            .with("brokers.main.group_protocol", "consumer")
            .with("brokers.main.session_timeout", "10s")
            .with("brokers.main.librdkafka.heartbeat_interval_ms", "1000");
        let (_, faults) = read(&config);
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(
            faults.iter().any(|fault| fault.contains("session_timeout")),
            "{faults:?}"
        );
        assert!(
            faults
                .iter()
                .any(|fault| fault.contains("heartbeat.interval.ms")),
            "{faults:?}"
        );
    }

    #[test]
    fn a_topic_of_ours_that_could_not_be_known_is_refused() {
        for (key, template, expected) in [
            (
                "later_topic",
                "waiting.{rung}",
                "does not end with `.later.{rung}`",
            ),
            (
                "dead_letter_topic",
                "dead-{group}-{topic}",
                "does not end with `.dlq`",
            ),
            (
                "retry_topic",
                "{topic}.{group}.again.{rung}",
                "does not hold `.retry.{rung}`",
            ),
        ] {
            let config = Config::new().with(&format!("brokers.main.{key}"), template);
            let (_, faults) = read(&config);
            assert_eq!(faults.len(), 1, "{faults:?}");
            assert!(faults[0].contains(expected), "{faults:?}");
        }
    }

    #[test]
    fn a_partition_is_given_up_between_two_polls() {
        let short = Config::new().with("brokers.main.max_poll_interval", "9s");
        let (settings, faults) = read(&short);
        assert_eq!(faults, [""; 0]);
        assert_eq!(settings.revoke_bound(), Duration::from_secs(3));
        assert_eq!(
            read(&Config::new()).0.revoke_bound(),
            Duration::from_secs(5)
        );
    }

    #[test]
    fn a_short_poll_interval_leaves_the_session_of_the_new_protocol_alone() {
        let config = Config::new()
            .with("brokers.main.group_protocol", "consumer")
            .with("brokers.main.max_poll_interval", "30s");
        let (settings, faults) = read(&config);
        assert_eq!(faults, [""; 0]);
        let reader = settings.reader("billing", "billing").unwrap();
        // Only making one checks that the settings fit each other.
        let made = reader.create::<rdkafka::consumer::BaseConsumer>();
        assert!(made.is_ok(), "{:?}", made.err());
    }

    #[test]
    fn a_template_that_two_subscriptions_would_share_is_refused() {
        let config = Config::new().with("brokers.main.dead_letter_topic", "{topic}.dlq");
        let (_, faults) = read(&config);
        assert!(faults[0].contains("lacks `{group}`"), "{faults:?}");
    }
}
