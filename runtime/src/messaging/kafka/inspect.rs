//! What is on the cluster beside what has to be there, and what has to be there as commands of Kafka's own
//! tools.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::TopicPartitionList;

use crate::messaging::{
    BrokerError, BrokerErrorKind, Difference, Export, Inspection, Leftover, Start, Topology,
    TopologyPart,
};

use super::admin;
use super::core::Core;
use super::dead_letters;
use super::errors;
use super::link::{Topic, Watch, client_id};
use super::topology::{self, Part, Source};

/// How long the cluster may take for one answer.
const ANSWER: Duration = Duration::from_secs(10);

type Wrong = (BrokerErrorKind, String);
/// Positions of one group: by topic and partition.
type Positions = HashMap<(String, i32), i64>;

/// Compares the cluster with a topology.
pub(super) async fn inspect(
    core: &Arc<Core>,
    topology: &Topology,
) -> Result<Inspection, BrokerError> {
    let there = core.ask_for_topics().await?;
    let mut inspection = Inspection::default();
    let mut known = Vec::new();
    for shown in &topology.parts {
        let Some(part) = topology::read(shown) else {
            let text = format!("{} `{}` is nothing that Kafka has", shown.kind, shown.name);
            return Err(core.error(BrokerErrorKind::Configuration, text));
        };
        known.push((shown, part));
    }
    topics(core, &there, &known, &mut inspection).await?;
    let groups: Vec<(TopologyPart, Part)> = known
        .iter()
        .filter(|(_, part)| matches!(part, Part::Group { .. }))
        .map(|(shown, part)| ((*shown).clone(), part.clone()))
        .collect();
    let declared: HashSet<String> = known
        .iter()
        .filter(|(_, part)| matches!(part, Part::Topic { .. }))
        .map(|(shown, _)| shown.name.clone())
        .collect();
    let looking = Arc::clone(core);
    let looked = tokio::task::spawn_blocking(move || {
        let look = Look {
            core: &looking,
            there: &there,
            declared: &declared,
        };
        look.groups(&groups)
    });
    let (missing, leftover) = match looked.await {
        Ok(Ok(found)) => found,
        Ok(Err((kind, text))) => return Err(core.error(kind, text)),
        Err(error) => return Err(core.error(BrokerErrorKind::ConnectionLost, error.to_string())),
    };
    inspection.missing.extend(missing);
    inspection.leftover = leftover;
    inspection.unseen.push(
        "groups that are no longer declared at all: nothing on the cluster tells whose they are \
         (`kafka-consumer-groups.sh --list`)"
            .to_owned(),
    );
    Ok(inspection)
}

async fn topics(
    core: &Core,
    there: &[Topic],
    known: &[(&TopologyPart, Part)],
    inspection: &mut Inspection,
) -> Result<(), BrokerError> {
    let by_name: HashMap<&str, &Topic> = there.iter().map(|one| (one.name.as_str(), one)).collect();
    let mut configured = Vec::new();
    for (shown, part) in known {
        let Part::Topic { name, config, .. } = part else {
            continue;
        };
        if !by_name.contains_key(name.as_str()) {
            inspection.missing.push((*shown).clone());
        } else if !config.is_empty() {
            configured.push(name.as_str());
        }
    }
    let described = admin::describe_topics(core, &configured).await?;
    for (shown, part) in known {
        let Part::Topic {
            name,
            partitions,
            partitions_of,
            replication,
            config,
        } = part
        else {
            continue;
        };
        let Some(found) = by_name.get(name.as_str()) else {
            continue;
        };
        let mut told = Vec::new();
        let source = partitions_of.as_deref().and_then(|of| by_name.get(of));
        let source = source.and_then(|topic| i32::try_from(topic.partitions).ok());
        let wanted = topology::partitions_like(*partitions, source);
        if i32::try_from(found.partitions) != Ok(wanted) {
            let count = found.partitions;
            told.push(format!("partitions are {count}, declared are {wanted}"));
        }
        if *replication > 0 && i32::try_from(found.replicas) != Ok(*replication) {
            let count = found.replicas;
            told.push(format!("replicas are {count}, declared are {replication}"));
        }
        if let (false, None) = (config.is_empty(), described.get(name)) {
            let text = format!("the settings of topic `{name}`: the user may not see them");
            inspection.unseen.push(text);
        }
        for (key, value) in config {
            let entry = described.get(name).and_then(|found| found.get(key));
            let is = entry.and_then(|entry| entry.value.as_deref());
            if let Some(is) = is.filter(|is| is != value) {
                told.push(format!("`{key}` is {is}, declared is {value}"));
            }
        }
        if !told.is_empty() {
            let difference = Difference::new((*shown).clone(), told.join("; "));
            inspection.different.push(difference);
        }
    }
    Ok(())
}

/// A look at what only the groups' positions tell. Blocks.
struct Look<'a> {
    core: &'a Arc<Core>,
    there: &'a [Topic],
    declared: &'a HashSet<String>,
}

impl Look<'_> {
    fn groups(
        &self,
        groups: &[(TopologyPart, Part)],
    ) -> Result<(Vec<TopologyPart>, Vec<Leftover>), Wrong> {
        let mut by_name: BTreeMap<&str, Vec<(&TopologyPart, &Source)>> = BTreeMap::new();
        for (shown, part) in groups {
            // One of an instance comes and goes with it.
            if let Part::Group {
                source,
                each_instance: false,
                ..
            } = part
            {
                by_name
                    .entry(&shown.name)
                    .or_default()
                    .push((shown, source));
            }
        }
        let (mut missing, mut leftover) = (Vec::new(), Vec::new());
        for (group, parts) in by_name {
            let positions = self.positions(group)?;
            let has = |topic: &str| positions.keys().any(|(name, _)| name == topic);
            for (shown, source) in &parts {
                // A pattern that nothing matches yet has no position anywhere.
                let sources = self.of(source)?;
                if !sources.is_empty() && !sources.iter().any(|topic| has(&topic.name)) {
                    missing.push((*shown).clone());
                }
            }
            leftover.extend(self.leftover(group, &parts, &positions)?);
        }
        Ok((missing, leftover))
    }

    /// What the group has a position in and is not declared, and topics of its retries that are not.
    fn leftover(
        &self,
        group: &str,
        parts: &[(&TopologyPart, &Source)],
        positions: &Positions,
    ) -> Result<Vec<Leftover>, Wrong> {
        let prefix = self.core.context.prefix.as_deref().unwrap_or_default();
        let plain = group.strip_prefix(prefix).unwrap_or(group);
        let settings = &self.core.settings;
        let retry = matcher(prefix, &settings.retry_topic, plain)?;
        let letters = matcher(prefix, &settings.dead_letter_topic, plain)?;
        let mut read = HashSet::new();
        for (_, source) in parts {
            read.extend(self.of(source)?.iter().map(|topic| topic.name.as_str()));
        }
        let has = |topic: &str| positions.keys().any(|(name, _)| name == topic);
        let mut retries = None;
        let mut found = Vec::new();
        for topic in self.there {
            let name = topic.name.as_str();
            if self.declared.contains(name) || read.contains(name) {
                continue;
            }
            // A position in its dead letters shows that the subscription was ours.
            if letters.is_match(name) && has(name) {
                let depth = dead_letters::count(self.core, name)?;
                found.push(Leftover::new("topic", name).depth(depth));
            } else if let Some(matched) = retry.captures(name) {
                let source = matched.get(1).map_or("", |source| source.as_str());
                let topic_of = format!("{prefix}{source}");
                let dead = settings.dead_letter_topic.replace("{topic}", source);
                let dead = format!("{prefix}{}", dead.replace("{group}", plain));
                let way_back = topology::way_back_of(prefix, settings, source, plain);
                if name == way_back && self.declared.contains(&dead) {
                    // Dead letters of a subscription went back by it, and others may.
                    continue;
                }
                let own = match &retries {
                    Some(own) => own,
                    None => retries.insert(self.positions(&format!("{group}.retry"))?),
                };
                let is_ours =
                    has(&topic_of) || has(&dead) || own.keys().any(|(topic, _)| topic == name);
                if is_ours {
                    let depth = self.depth(topic, own)?;
                    found.push(Leftover::new("topic", name).depth(depth));
                }
            } else if has(name) && !admin::is_own(name) {
                let depth = self.depth(topic, positions)?;
                found.push(Leftover::new("group", format!("{group} in {name}")).depth(depth));
            }
        }
        Ok(found)
    }

    fn of(&self, source: &Source) -> Result<Vec<&Topic>, Wrong> {
        super::positions::of_source(source, self.there)
    }

    /// Where the group is, in every topic that has our prefix.
    fn positions(&self, group: &str) -> Result<Positions, Wrong> {
        let client = self.client(group)?;
        let prefix = self.core.context.prefix.as_deref().unwrap_or_default();
        let mut asked = TopicPartitionList::new();
        for topic in self.there {
            if topic.name.starts_with("__") || !topic.name.starts_with(prefix) {
                continue;
            }
            for partition in 0..i32::try_from(topic.partitions).unwrap_or(i32::MAX) {
                asked.add_partition(&topic.name, partition);
            }
        }
        if asked.count() == 0 {
            return Ok(Positions::new());
        }
        let committed = admin::patient(|| client.committed_offsets(asked.clone(), ANSWER));
        let committed = committed.map_err(|error| errors::told(&error))?;
        let elements = committed.elements();
        let positions = elements.iter().filter_map(|element| {
            let Offset::Offset(offset) = element.offset() else {
                return None;
            };
            Some(((element.topic().to_owned(), element.partition()), offset))
        });
        Ok(positions.collect())
    }

    /// How many records of a topic lie above the group's positions.
    fn depth(&self, topic: &Topic, positions: &Positions) -> Result<u64, Wrong> {
        let client = self.client("interline-inspection")?;
        let mut depth = 0;
        for partition in 0..i32::try_from(topic.partitions).unwrap_or(i32::MAX) {
            let watermarks =
                admin::patient(|| client.fetch_watermarks(&topic.name, partition, ANSWER));
            let (low, high) = watermarks.map_err(|error| errors::told(&error))?;
            let position = positions.get(&(topic.name.clone(), partition));
            let from = position.copied().unwrap_or(low).max(low);
            depth += u64::try_from(high - from).unwrap_or_default();
        }
        Ok(depth)
    }

    fn client(&self, group: &str) -> Result<BaseConsumer<Watch>, Wrong> {
        let config = self.core.settings.reader(&client_id(self.core), group)?;
        let made = config.create_with_context(Watch::new(self.core));
        made.map_err(|error| errors::told(&error))
    }
}

/// What finds the topics that a template gives a group; its first group is the subscription's topic.
fn matcher(prefix: &str, template: &str, group: &str) -> Result<regex_lite::Regex, Wrong> {
    let mut expression = format!("^{}", topology::escaped(prefix));
    let mut rest = template;
    while let Some(at) = rest.find('{') {
        let (before, from) = rest.split_at(at);
        expression.push_str(&topology::escaped(before));
        let (name, behind) = from.split_once('}').unwrap_or((from, ""));
        match name {
            "{topic" => expression.push_str("(.+)"),
            "{group" => expression.push_str(&topology::escaped(group)),
            "{rung" => expression.push_str("[0-9]+(?:ms|s|m|h)"),
            other => expression.push_str(&topology::escaped(other)),
        }
        rest = behind;
    }
    expression.push_str(&topology::escaped(rest));
    expression.push('$');
    regex_lite::Regex::new(&expression)
        .map_err(|error| (BrokerErrorKind::Configuration, error.to_string()))
}

/// What stands above the commands.
const SCRIPT: &str = r#"#!/bin/sh
# Makes the topics that are missing, and has the groups that are new to a topic begin in it:
#   BOOTSTRAP_SERVER=host:port sh FILE
# What follows FILE goes to each command, such as --command-config client.properties.
set -eu
create() {
    kafka-topics.sh --bootstrap-server "$BOOTSTRAP_SERVER" --create --if-not-exists "$@"
}
begin() {
    group=$1 topic=$2 to=$3
    shift 3
    groups() {
        kafka-consumer-groups.sh --bootstrap-server "$BOOTSTRAP_SERVER" --group "$group" "$@"
    }
    # One that has a position keeps it. Group, topic, partition and position are the first columns.
    if groups --describe "$@" 2>&1 |
        awk -v topic="$topic" '$2 == topic && $4 ~ /^[0-9]+$/ { found = 1 } END { exit !found }'
    then
        return
    fi
    groups --topic "$topic" --reset-offsets "$to" --execute "$@"
}

"#;

/// The topology as commands of Kafka's own tools. They change nothing that is there.
pub(super) fn export(topology: &Topology) -> Export {
    let mut text = SCRIPT.to_owned();
    // Writing to a text cannot fail.
    for shown in &topology.parts {
        match topology::read(shown) {
            Some(Part::Topic {
                name,
                partitions,
                replication,
                config,
                ..
            }) => {
                let _ = write!(
                    text,
                    "create --topic {} --partitions {partitions}",
                    quoted(&name)
                );
                if replication > 0 {
                    let _ = write!(text, " --replication-factor {replication}");
                }
                for (key, value) in config {
                    let _ = write!(text, " --config {}", quoted(&format!("{key}={value}")));
                }
                text.push_str(" \"$@\"\n");
            }
            // That of an instance is made by the instance.
            Some(Part::Group {
                each_instance: true,
                ..
            })
            | None => {}
            Some(Part::Group {
                name,
                source: Source::Topic(topic),
                start,
                ..
            }) => {
                let to = match start {
                    Start::Earliest => "--to-earliest",
                    Start::New => "--to-latest",
                };
                let (group, topic) = (quoted(&name), quoted(&topic));
                let _ = writeln!(text, "begin {group} {topic} {to} \"$@\"");
            }
            Some(Part::Group { name, .. }) => {
                let _ = writeln!(
                    text,
                    "# group {}: which topics it reads shows when the service first runs",
                    name.replace(['\n', '\r'], " ")
                );
            }
        }
    }
    let format =
        "kafka-topics and kafka-consumer-groups commands: BOOTSTRAP_SERVER=host:port sh FILE";
    Export::new(format, "sh", text)
}

/// A text as a shell takes it for one word.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_of_a_group_is_told_from_those_of_others() {
        let retry = matcher("dev-", "{topic}.{group}.retry.{rung}", "billing").unwrap();
        let source = |name: &str| {
            let found = retry.captures(name)?;
            Some(found.get(1)?.as_str().to_owned())
        };
        assert_eq!(
            source("dev-orders.placed.billing.retry.5s").as_deref(),
            Some("orders.placed")
        );
        for other in [
            "orders.billing.retry.5s",
            "dev-orders.shop.retry.5s",
            "dev-orders.billing.retry.soon",
            "dev-orders.billing.dlq",
            "dev-ordersxbilling.retry.5s",
        ] {
            assert_eq!(source(other), None, "{other}");
        }
    }

    #[test]
    fn a_word_of_the_shell_stays_one() {
        assert_eq!(quoted("a b'c"), r"'a b'\''c'");
    }
}
