//! What subscriptions are called on their broker: two of them under one name would take each other's
//! messages.

use std::collections::{BTreeMap, BTreeSet};

use crate::messaging::{PlannedHandler, PlannedSubscription, Topology, TopologyPart};

use super::Findings;
use super::brokers::Brokers;
use super::problem::{Place, Problem};

/// The kinds of parts that hold the messages of one subscription alone.
const HOLDERS: [&str; 3] = ["queue", "stream", "topic"];
/// The kind of part that reads what several share.
const READER: &str = "group";

/// Something that belongs to one subscription: what it is called, in words.
type Own = String;

/// Finds the subscriptions that have something in common on their broker.
pub(super) fn shared_names(
    planned: &[PlannedSubscription],
    brokers: &Brokers,
    findings: &mut Findings,
) {
    let mut owners: BTreeMap<(&str, Own), usize> = BTreeMap::new();
    let mut told = BTreeSet::new();
    for (index, subscription) in planned.iter().enumerate() {
        let Some(entry) = brokers.get(&subscription.broker) else {
            continue;
        };
        for own in own_names(&entry.topology(&subscription.subscription)) {
            let key = (&*subscription.broker, own);
            match owners.get(&key) {
                None => drop(owners.insert(key, index)),
                Some(first) if told.insert((*first, index)) => {
                    findings
                        .problems
                        .extend(shared(&key.1, &planned[*first], subscription));
                }
                Some(_) => {}
            }
        }
    }
}

/// What only one subscription may have of its topology; what says most to a reader comes first.
fn own_names(topology: &Topology) -> Vec<Own> {
    let readers = || topology.parts.iter().filter(|part| part.kind == READER);
    let source = |part: &TopologyPart| part.arguments.first().cloned();
    let is_read = |part: &TopologyPart| {
        let read = |reader| source(reader).is_some_and(|(_, name)| name == part.name);
        readers().any(read)
    };
    let mut own: Vec<Own> = topology
        .parts
        .iter()
        .filter(|part| HOLDERS.contains(&part.kind) && part.subscription.is_some())
        .filter(|part| !is_read(part))
        .map(|part| format!("the {} `{}`", part.kind, part.name))
        .collect();
    // Names for retries and dead letters are made of the plain one.
    own.sort_by_key(String::len);
    let read = readers().filter_map(|part| {
        let (kind, name) = source(part)?;
        Some(format!(
            "the {kind} `{name}` as consumer group `{}`",
            part.name
        ))
    });
    read.chain(own).collect()
}

fn shared(own: &str, first: &PlannedSubscription, second: &PlannedSubscription) -> Option<Problem> {
    let handler = |planned: &PlannedSubscription| -> Option<PlannedHandler> {
        planned.handlers.first().cloned()
    };
    let (by, found) = (handler(first)?, handler(second)?);
    let (topic, group) = (&second.subscription.topic, &second.subscription.group);
    let (other_topic, other_group) = (&first.subscription.topic, &first.subscription.group);
    let message = format!(
        "has {own} for `{topic}` in group `{group}`, and `{}` ({}) has it for `{other_topic}` in group \
         `{other_group}`",
        by.name,
        Place::Source(by.location)
    );
    let problem = Problem::new(Place::Source(found.location), &*found.name, message);
    let help = "give one of the two another `group` or name, or both the same topic and group";
    Some(problem.help(help))
}
