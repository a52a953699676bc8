//! What has to exist on the cluster for a subscription. Pure: no argument comes from anything that a
//! redeploy may change.

use std::time::Duration;

use crate::messaging::{Group, Start, Subscription, Topology, TopologyMode, TopologyPart};

use super::later::LEVELS;
use super::settings::Settings;

/// The delay in the name of the topic by which dead letters go back where no retry has a topic.
const WAY_BACK: Duration = Duration::from_secs(1);
/// Most partitions of a retry topic.
const RETRY_PARTITIONS_MAX: i32 = 6;
/// Kafka's longest name.
const NAME_BYTES_MAX: usize = 249;

/// What a subscription reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Topic(String),
    /// A regular expression over the topics of the cluster.
    Pattern(String),
}

impl Source {
    /// As librdkafka subscribes to it: a pattern begins with `^`.
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Topic(text) | Self::Pattern(text) => text,
        }
    }
}

/// Where a subscription lives on the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) group: String,
    pub(super) source: Source,
    /// Empty where retries wait in the process.
    pub(super) retries: Vec<(Duration, String)>,
    /// What stands before and behind the delay in the name of a topic of retries.
    retry_affixes: (String, String),
    pub(super) dead_letters: String,
    /// Whether the group goes with the instance.
    pub(super) each_instance: bool,
}

impl Names {
    /// Whether a part is a topic of retries.
    pub(super) fn is_retry(&self, part: &Part) -> bool {
        let Part::Topic { name, .. } = part else {
            return false;
        };
        self.retries.iter().any(|(_, retry)| retry == name)
    }

    /// The delay of a topic of this subscription's retries, be it one of today's or one of a ladder that
    /// was configured before.
    pub(super) fn rung_of(&self, topic: &str) -> Option<Duration> {
        let (before, behind) = &self.retry_affixes;
        let rung = topic.strip_prefix(before.as_str())?;
        parse_rung(rung.strip_suffix(behind.as_str())?)
    }

    /// The group that reads the topics of retries.
    pub(super) fn retry_group(&self) -> String {
        format!("{}.retry", self.group)
    }

    /// The topic of a rung.
    pub(super) fn retry(&self, after: Duration) -> Option<&str> {
        let found = self.retries.iter().find(|(rung, _)| *rung == after);
        found.map(|(_, name)| name.as_str())
    }

    /// The topic in which a re-driven message goes back to its subscription, with its delay: the first one
    /// of its retries, else one of its own. `None` where an instance reads for itself.
    pub(super) fn way_back(&self) -> Option<(Duration, String)> {
        match self.retries.first() {
            Some((rung, name)) => Some((*rung, name.clone())),
            None => Some((WAY_BACK, self.way_back_of_its_own()?)),
        }
    }

    /// The topic in which dead letters go back where no retry waits in it: it is made when the first ones
    /// do, by somebody who may not know the ladder. `None` if it is there for retries, or cannot be.
    pub(super) fn way_back_beside(&self) -> Option<String> {
        let own = self.way_back_of_its_own()?;
        let is_beside = !self.retries.iter().any(|(_, name)| *name == own);
        is_beside.then_some(own)
    }

    fn way_back_of_its_own(&self) -> Option<String> {
        let (before, behind) = &self.retry_affixes;
        let rung = rung_name(WAY_BACK);
        (!self.each_instance).then(|| format!("{before}{rung}{behind}"))
    }
}

/// The topic by which dead letters of a topic go back to a group whose retries have none.
pub(super) fn way_back_of(prefix: &str, settings: &Settings, topic: &str, group: &str) -> String {
    let name = settings.retry_topic.replace("{topic}", topic);
    let name = name.replace("{group}", group);
    let name = name.replace("{rung}", &rung_name(WAY_BACK));
    format!("{prefix}{name}")
}

/// One thing that has to be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Topic {
        name: String,
        partitions: i32,
        /// As many partitions as this topic has, if that is fewer.
        partitions_of: Option<String>,
        /// -1 for the cluster's own default.
        replication: i32,
        config: Vec<(String, String)>,
    },
    /// A position of the group in every partition of the source.
    Group {
        name: String,
        source: Source,
        start: Start,
        /// A topic of the subscription's own, in which a position shows that it was applied before.
        marker: Option<String>,
        /// Whether it goes with the instance.
        each_instance: bool,
    },
}

pub(super) fn names(
    prefix: Option<&str>,
    settings: &Settings,
    subscription: &Subscription,
) -> Names {
    let prefix = prefix.unwrap_or_default();
    let own = &subscription.kafka;
    let source = match &own.pattern {
        Some(pattern) => Source::Pattern(anchored(pattern)),
        None if subscription.topic.is_pattern() => Source::Pattern(format!(
            "^{}{}$",
            escaped(prefix),
            escaped(&subscription.topic.with_wildcard("*")).replace("\\*", "[^.]+")
        )),
        None => Source::Topic(format!("{prefix}{}", subscription.topic)),
    };
    let topic = subscription.topic.with_wildcard("-");
    let render = |template: &str, group: &str| {
        let name = template
            .replace("{topic}", &topic)
            .replace("{group}", group);
        format!("{prefix}{name}")
    };
    match &subscription.group {
        Group::EachInstance {
            service,
            instance,
            subscriber,
        } => {
            let shared = format!("{service}.{subscriber}");
            Names {
                group: format!("{prefix}{shared}.{instance}"),
                source,
                // Topics of their own would outlive the instance.
                retries: Vec::new(),
                retry_affixes: (String::new(), String::new()),
                dead_letters: render(&settings.dead_letter_topic, &shared),
                each_instance: true,
            }
        }
        Group::Named(group) => {
            let group_id = own
                .group_id
                .clone()
                .unwrap_or_else(|| format!("{prefix}{group}"));
            let rungs = subscription.ladder.iter().filter(|_| !own.retry_in_lane);
            let retries = rungs.map(|rung| {
                let template = settings.retry_topic.replace("{rung}", &rung_name(*rung));
                (*rung, render(&template, group))
            });
            let named = render(&settings.retry_topic, group);
            let (before, behind) = named.split_once("{rung}").unwrap_or((&named, ""));
            Names {
                group: group_id,
                source,
                retry_affixes: (before.to_owned(), behind.to_owned()),
                retries: retries.collect(),
                dead_letters: render(&settings.dead_letter_topic, group),
                each_instance: false,
            }
        }
    }
}

/// Where messages for later lie: one topic for each level, and one for what cannot be delivered. They are
/// everybody's, unless configured, so that whoever runs moves what others wrote.
pub(super) fn later_names(prefix: Option<&str>, settings: &Settings, service: &str) -> Names {
    let prefix = prefix.unwrap_or_default();
    let template = settings.later_topic.replace("{service}", service);
    let level = |millis: u64| {
        let level = Duration::from_millis(millis);
        let name = template.replace("{rung}", &rung_name(level));
        (level, format!("{prefix}{name}"))
    };
    let before = template.strip_suffix("{rung}").unwrap_or(&template);
    let group = format!("{prefix}{}", before.trim_end_matches('.'));
    Names {
        // No topic has such a name: it reads levels alone.
        source: Source::Topic(String::new()),
        retries: LEVELS.into_iter().map(level).collect(),
        retry_affixes: (format!("{prefix}{before}"), String::new()),
        dead_letters: format!("{group}.dlq"),
        each_instance: false,
        group,
    }
}

/// A topic of messages for later. Nothing in it ends by its age: what was moved is removed.
pub(super) fn later_topic(name: &str, settings: &Settings) -> Part {
    let config = [
        ("cleanup.policy", "delete"),
        ("retention.bytes", "-1"),
        ("retention.ms", "-1"),
        // What was removed goes from the disk a segment at a time.
        ("segment.bytes", "67108864"),
    ];
    Part::Topic {
        name: name.to_owned(),
        partitions: settings.partitions.min(RETRY_PARTITIONS_MAX),
        partitions_of: None,
        replication: settings.replication,
        config: config
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
    }
}

/// A delay as people write it: `5s`, `2m`, `1h`, `1500ms`.
fn rung_name(delay: Duration) -> String {
    let millis = delay.as_millis().max(1);
    let units = [(3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    match units.iter().find(|(size, _)| millis.is_multiple_of(*size)) {
        Some((size, unit)) => format!("{}{unit}", millis / size),
        None => format!("{millis}ms"),
    }
}

/// Reads what [`rung_name`] writes.
pub(super) fn parse_rung(text: &str) -> Option<Duration> {
    let at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(at);
    let size = match unit {
        "h" => 3_600_000,
        "m" => 60_000,
        "s" => 1_000,
        "ms" => 1,
        _ => return None,
    };
    let millis = number.parse::<u64>().ok()?.checked_mul(size)?;
    Some(Duration::from_millis(millis))
}

fn anchored(pattern: &str) -> String {
    if pattern.starts_with('^') {
        pattern.to_owned()
    } else {
        format!("^{pattern}")
    }
}

pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        if !character.is_ascii_alphanumeric() && !matches!(character, '-' | '_') {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

/// The first name that Kafka would not take, and why.
pub(super) fn unfit(names: &Names) -> Option<String> {
    let topics = names
        .retries
        .iter()
        .map(|(_, name)| name.as_str())
        .chain([names.dead_letters.as_str()]);
    let plain = match &names.source {
        Source::Topic(topic) => Some(topic.as_str()),
        Source::Pattern(_) => None,
    };
    for name in topics.chain(plain) {
        if name.len() > NAME_BYTES_MAX {
            return Some(format!(
                "the topic name `{name}` is longer than Kafka's 249 bytes"
            ));
        }
        let odd = name
            .chars()
            .find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '.' | '_' | '-'));
        if let Some(odd) = odd {
            return Some(format!(
                "the topic name `{name}` holds `{odd}`, which Kafka does not take"
            ));
        }
    }
    None
}

/// The topic `name` in which dead letters go back to a subscription.
pub(super) fn way_back_topic(
    name: &str,
    names: &Names,
    settings: &Settings,
    subscription: &Subscription,
) -> Part {
    let own = &subscription.kafka;
    let partitions = own.partitions.unwrap_or(settings.partitions);
    Part::Topic {
        name: name.to_owned(),
        partitions: partitions.min(RETRY_PARTITIONS_MAX),
        partitions_of: match &names.source {
            Source::Topic(topic) => Some(topic.clone()),
            Source::Pattern(_) => None,
        },
        replication: own.replication.unwrap_or(settings.replication),
        config: Vec::new(),
    }
}

/// Everything of a subscription, in the order in which it is made.
pub(super) fn parts(
    prefix: Option<&str>,
    settings: &Settings,
    subscription: &Subscription,
) -> Vec<Part> {
    let names = names(prefix, settings, subscription);
    let own = &subscription.kafka;
    let replication = own.replication.unwrap_or(settings.replication);
    let partitions = own.partitions.unwrap_or(settings.partitions);
    let topic =
        |name: &str, partitions: i32, partitions_of: Option<&str>, config: &[(&str, &str)]| {
            Part::Topic {
                name: name.to_owned(),
                partitions,
                partitions_of: partitions_of.map(str::to_owned),
                replication,
                config: config
                    .iter()
                    .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                    .collect(),
            }
        };
    let mut parts = Vec::new();
    let plain = match &names.source {
        Source::Topic(name) => {
            parts.push(topic(name, partitions, None, &[]));
            Some(name.as_str())
        }
        Source::Pattern(_) => None,
    };
    for (_, name) in &names.retries {
        let fewer = partitions.min(RETRY_PARTITIONS_MAX);
        parts.push(topic(name, fewer, plain, &[]));
    }
    if subscription.dead_letter {
        parts.push(dead_letter_topic(&names, replication));
    }
    let marker = if subscription.dead_letter {
        Some(&names.dead_letters)
    } else {
        names.retries.first().map(|(_, name)| name)
    };
    parts.push(Part::Group {
        name: names.group.clone(),
        source: names.source.clone(),
        start: subscription.start,
        marker: marker.filter(|_| !names.each_instance).cloned(),
        each_instance: names.each_instance,
    });
    parts
}

/// How many partitions a topic gets that is to have as many as another: of which `other` are there.
pub(super) fn partitions_like(declared: i32, other: Option<i32>) -> i32 {
    other.map_or(declared, |other| other.clamp(1, RETRY_PARTITIONS_MAX))
}

/// One partition, so that dead letters keep their order; compacted, so that one is taken out by a
/// record without a value and stays until then.
pub(super) fn dead_letter_topic(names: &Names, replication: i32) -> Part {
    Part::Topic {
        name: names.dead_letters.clone(),
        partitions: 1,
        partitions_of: None,
        replication,
        config: vec![("cleanup.policy".to_owned(), "compact".to_owned())],
    }
}

const PARTITIONS: &str = "partitions";
const PARTITIONS_OF: &str = "partitions at most as";
const REPLICATION: &str = "replication";
const TOPICS: &str = "topics";
const TOPIC: &str = "topic";
const START: &str = "start";
const MARKER: &str = "known by";
const LASTS: &str = "lasts";
const AS_THE_INSTANCE: &str = "as long as the instance";

/// The topology of subscriptions, to be printed, compared and applied.
pub(super) fn readable<'a>(
    prefix: Option<&str>,
    settings: &Settings,
    subscriptions: impl Iterator<Item = &'a Subscription>,
) -> Topology {
    let mut topology = Topology::default();
    for subscription in subscriptions {
        for part in parts(prefix, settings, subscription) {
            let mut shown = show(&part, subscription.topology);
            let same = topology.parts.iter_mut().find(|known| {
                known.kind == shown.kind && known.name == shown.name && shown.kind == "topic"
            });
            match same {
                // Several subscriptions read one topic; whoever may make it makes it.
                Some(known) => {
                    known.subscription = None;
                    if shown.mode == TopologyMode::Apply {
                        known.mode = TopologyMode::Apply;
                    }
                }
                None => {
                    shown.subscription = Some(subscription.label.clone());
                    topology.parts.push(shown);
                }
            }
        }
    }
    topology
}

fn show(part: &Part, mode: TopologyMode) -> TopologyPart {
    let mut arguments = Vec::new();
    let mut add = |name: &str, value: String| arguments.push((name.to_owned(), value));
    let (kind, name) = match part {
        Part::Topic {
            name,
            partitions,
            partitions_of,
            replication,
            config,
        } => {
            add(PARTITIONS, partitions.to_string());
            if let Some(other) = partitions_of {
                add(PARTITIONS_OF, other.clone());
            }
            if *replication > 0 {
                add(REPLICATION, replication.to_string());
            }
            for (key, value) in config {
                add(key, value.clone());
            }
            ("topic", name)
        }
        Part::Group {
            name,
            source,
            start,
            marker,
            each_instance,
        } => {
            match source {
                Source::Topic(topic) => add(TOPIC, topic.clone()),
                Source::Pattern(pattern) => add(TOPICS, pattern.clone()),
            }
            let start = match start {
                Start::Earliest => "earliest",
                Start::New => "new",
            };
            add(START, start.to_owned());
            if let Some(marker) = marker {
                add(MARKER, marker.clone());
            }
            if *each_instance {
                add(LASTS, AS_THE_INSTANCE.to_owned());
            }
            ("group", name)
        }
    };
    let mut shown = TopologyPart::new(kind, name, mode);
    shown.arguments = arguments;
    shown
}

/// Reads what [`show`] wrote; `None` for what Kafka does not have.
pub(super) fn read(part: &TopologyPart) -> Option<Part> {
    let value = |name: &str| {
        let found = part.arguments.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.clone())
    };
    match part.kind {
        "topic" => {
            let own = [PARTITIONS, PARTITIONS_OF, REPLICATION];
            let config = part
                .arguments
                .iter()
                .filter(|(name, _)| !own.contains(&name.as_str()));
            Some(Part::Topic {
                name: part.name.clone(),
                partitions: value(PARTITIONS)?.parse().ok()?,
                partitions_of: value(PARTITIONS_OF),
                replication: match value(REPLICATION) {
                    Some(text) => text.parse().ok()?,
                    None => -1,
                },
                config: config.cloned().collect(),
            })
        }
        "group" => Some(Part::Group {
            name: part.name.clone(),
            source: match value(TOPICS) {
                Some(pattern) => Source::Pattern(pattern),
                None => Source::Topic(value(TOPIC)?),
            },
            start: match value(START)?.as_str() {
                "earliest" => Start::Earliest,
                "new" => Start::New,
                _ => return None,
            },
            marker: value(MARKER),
            each_instance: value(LASTS).is_some(),
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Faults};
    use crate::message::TopicPattern;

    fn settings() -> Settings {
        let config = Config::new();
        Settings::read(&config.section("brokers.main"), &mut Faults::new())
    }

    fn subscription(topic: &str) -> Subscription {
        let topic = TopicPattern::parse(topic.to_owned()).unwrap();
        Subscription::new(topic, Group::Named("billing".into()))
    }

    #[test]
    fn everything_of_a_subscription_is_named_after_topic_and_group() {
        let found = names(Some("dev-"), &settings(), &subscription("orders.placed"));
        assert_eq!(found.group, "dev-billing");
        assert_eq!(found.source, Source::Topic("dev-orders.placed".to_owned()));
        assert_eq!(found.dead_letters, "dev-orders.placed.billing.dlq");
        let retries: Vec<_> = found
            .retries
            .iter()
            .map(|(_, name)| name.as_str())
            .collect();
        assert_eq!(retries[0], "dev-orders.placed.billing.retry.1s");
        assert_eq!(retries[3], "dev-orders.placed.billing.retry.2m");
        assert_eq!(retries.len(), 6);
        assert_eq!(unfit(&found), None);
        // Those of an earlier ladder are ours too.
        let rung = |name: &str| found.rung_of(&format!("dev-orders.placed.billing.retry.{name}"));
        assert_eq!(rung("7s"), Some(Duration::from_secs(7)));
        assert_eq!(rung("1500ms"), Some(Duration::from_millis(1_500)));
        assert_eq!((rung("x"), rung("5"), rung("5d")), (None, None, None));
        assert_eq!(found.rung_of("dev-orders.paid.billing.retry.1s"), None);
    }

    #[test]
    fn a_template_becomes_an_expression_over_whole_segments() {
        let found = names(None, &settings(), &subscription("orders.{region}.placed"));
        let expected = r"^orders\.[^.]+\.placed$".to_owned();
        assert_eq!(found.source, Source::Pattern(expected));
        assert_eq!(found.dead_letters, "orders.-.placed.billing.dlq");
        let mut own = subscription("orders");
        own.kafka.pattern = Some("orders-.*".to_owned());
        own.kafka.group_id = Some("legacy".to_owned());
        let found = names(Some("dev-"), &settings(), &own);
        assert_eq!(found.source, Source::Pattern("^orders-.*".to_owned()));
        assert_eq!(found.group, "legacy");
    }

    #[test]
    fn no_argument_depends_on_what_a_redeploy_changes() {
        let mut other = subscription("orders");
        let before = parts(None, &settings(), &other);
        other.prefetch = 1;
        assert_eq!(parts(None, &settings(), &other), before);
    }

    #[test]
    fn what_is_shown_reads_the_same_again() {
        let mut odd = subscription("orders.{region}.placed");
        odd.start = Start::Earliest;
        odd.kafka.replication = Some(3);
        let mut each = subscription("orders");
        each.group = Group::EachInstance {
            service: "shop".into(),
            instance: "i-1".into(),
            subscriber: "refresh".into(),
        };
        for subscription in [subscription("orders"), odd, each] {
            for part in parts(Some("p."), &settings(), &subscription) {
                let shown = show(&part, TopologyMode::Apply);
                assert_eq!(read(&shown), Some(part));
            }
        }
        let foreign = TopologyPart::new("queue", "q", TopologyMode::Apply);
        assert_eq!(read(&foreign), None);
    }

    #[test]
    fn messages_for_later_have_topics_of_everybody_or_of_a_service() {
        let found = later_names(Some("dev-"), &settings(), "billing");
        assert_eq!(found.group, "dev-interline.later");
        assert_eq!(found.retries[0].1, "dev-interline.later.1s");
        assert_eq!(found.retries[8].1, "dev-interline.later.24h");
        assert_eq!(found.dead_letters, "dev-interline.later.dlq");
        for (level, name) in &found.retries {
            assert_eq!(found.rung_of(name), Some(*level));
        }
        assert_eq!(found.rung_of("dev-interline.later.dlq"), None);
        let config = Config::new().with("brokers.main.later_topic", "{service}.later.{rung}");
        let own = Settings::read(&config.section("brokers.main"), &mut Faults::new());
        let found = later_names(None, &own, "billing");
        assert_eq!(
            (found.group.as_str(), found.retries[1].1.as_str()),
            ("billing.later", "billing.later.5s")
        );
    }

    #[test]
    fn an_instance_leaves_no_topics_behind() {
        let mut each = subscription("orders");
        each.group = Group::EachInstance {
            service: "shop".into(),
            instance: "i-1".into(),
            subscriber: "refresh".into(),
        };
        let found = names(None, &settings(), &each);
        assert_eq!(found.group, "shop.refresh.i-1");
        assert_eq!(found.dead_letters, "orders.shop.refresh.dlq");
        assert!(found.retries.is_empty());
        assert_eq!((found.way_back(), found.way_back_beside()), (None, None));
    }

    #[test]
    fn there_is_a_way_back_also_where_no_retry_has_a_topic() {
        let name = |rung: &str| format!("dev-orders.billing.retry.{rung}");
        let way = |change: fn(&mut Subscription)| {
            let mut changed = subscription("orders");
            change(&mut changed);
            let names = names(Some("dev-"), &settings(), &changed);
            (names.way_back(), names.way_back_beside())
        };
        let second = Duration::from_secs(1);
        assert_eq!(way(|_| {}), (Some((second, name("1s"))), None));
        let own = (Some((second, name("1s"))), Some(name("1s")));
        assert_eq!(way(|one| one.kafka.retry_in_lane = true), own);
        let slow = Duration::from_secs(5);
        let beside = (Some((slow, name("5s"))), Some(name("1s")));
        assert_eq!(
            way(|one| one.ladder = [Duration::from_secs(5)].into()),
            beside
        );
        let of = way_back_of("dev-", &settings(), "orders", "billing");
        assert_eq!(of, name("1s"));
    }
}
