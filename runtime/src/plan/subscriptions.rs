//! Several subscribers of one broker, topic and group are one subscription: they must agree.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use crate::handling::OnUnknown;
use crate::messaging::{
    Ack, CONCURRENCY_DEFAULT, Group, KafkaSubscription, PlannedHandler, PlannedSubscription,
    RabbitMqSubscription, RedisSubscription, Start, Subscription, TopologyMode,
};

use super::Findings;
use super::brokers::{Brokers, Entry};
use super::names::shared_names;
use super::problem::Problem;
use super::resolve::Use;

/// Joins the uses to subscriptions, sorted by broker, topic and group.
pub(super) fn join(
    uses: Vec<Use>,
    brokers: &Brokers,
    findings: &mut Findings,
) -> Vec<PlannedSubscription> {
    let mut groups: BTreeMap<_, Vec<Use>> = BTreeMap::new();
    for found in uses {
        let key = (
            Arc::clone(&found.broker),
            found.topic.clone(),
            found.group.clone(),
        );
        groups.entry(key).or_default().push(found);
    }
    let groups: Vec<Vec<Use>> = groups.into_values().collect();
    let planned: Vec<_> = groups
        .into_iter()
        .filter_map(|members| {
            let entry = brokers.get(&members.first()?.broker)?;
            duplicates(&members, findings);
            joined(members, entry, findings)
        })
        .collect();
    shared_names(&planned, brokers, findings);
    planned
}

fn problem(found: &Use, message: String, help: &str) -> Problem {
    Problem::new(found.place.clone(), &*found.name, message).help(help)
}

/// Two handlers of one subscription for the same messages: neither would get all of them.
fn duplicates(members: &[Use], findings: &mut Findings) {
    for (index, found) in members.iter().enumerate() {
        for first in &members[..index] {
            let shared = if found.contracts.is_empty() && first.contracts.is_empty() {
                Some("everything")
            } else {
                let mut ours = found.contracts.iter().map(|contract| contract.name);
                ours.find(|ours| first.contracts.iter().any(|theirs| theirs.name == *ours))
            };
            if let Some(shared) = shared {
                let message = format!(
                    "takes `{shared}` of `{}` in group `{}`, and so does `{}` ({})",
                    found.topic, found.group, first.name, first.place
                );
                let help = "give one of the two another `group`";
                findings.problems.push(problem(found, message, help));
            }
        }
    }
}

/// The value that all agree on; whoever differs from the first that says one is a problem.
fn agreed<T: PartialEq + Debug>(
    members: &[Use],
    what: &str,
    findings: &mut Findings,
    said: impl Fn(&Use) -> Option<T>,
) -> Option<T> {
    let mut chosen: Option<(T, &Use)> = None;
    for found in members {
        let Some(value) = said(found) else {
            continue;
        };
        match &chosen {
            None => chosen = Some((value, found)),
            Some((first, by)) if *first != value => {
                let message = format!(
                    "shares the subscription to `{}` in group `{}` with `{}` ({}), and they \
                     differ in `{what}`",
                    found.topic, found.group, by.name, by.place
                );
                let help = "make them agree, or give one of the two another `group`";
                findings.problems.push(problem(found, message, help));
            }
            Some(_) => {}
        }
    }
    chosen.map(|(value, _)| value)
}

fn joined(
    members: Vec<Use>,
    entry: &Entry,
    findings: &mut Findings,
) -> Option<PlannedSubscription> {
    let first = members.first()?;
    if members.len() > 1
        && let Some(batch) = members.iter().find(|found| found.batch.is_some())
    {
        let other = members.iter().find(|found| found.name != batch.name)?;
        let message = format!(
            "takes batches of `{}` in group `{}`, which it shares with `{}` ({})",
            batch.topic, batch.group, other.name, other.place
        );
        let help = "a batch subscriber is alone in its subscription: give it another `group`";
        findings.problems.push(problem(batch, message, help));
        return None;
    }
    let ordered_by = agreed(&members, "ordered_by", findings, |found| {
        Some(found.ordered_by)
    });
    let ack = agreed(&members, "ack", findings, |found| Some(found.ack));
    let start = agreed(&members, "start", findings, |found| Some(found.start));
    let concurrency = agreed(&members, "concurrency", findings, |found| found.concurrency)
        .unwrap_or(CONCURRENCY_DEFAULT);
    let prefetch = agreed(&members, "prefetch", findings, |found| found.prefetch);
    let breaker = agreed(&members, "breaker", findings, |found| found.breaker);
    let rate = agreed(&members, "rate", findings, |found| found.rate);
    let topology = agreed(&members, "topology", findings, |found| found.topology);
    let dead_letter = agreed(&members, "dead_letter", findings, |found| found.dead_letter);
    let on_unknown = agreed(&members, "on_unknown", findings, |found| {
        found.on_unknown.filter(|_| !found.contracts.is_empty())
    });
    let kafka = agreed(&members, "kafka", findings, |found| {
        (found.kafka != KafkaSubscription::default()).then(|| found.kafka.clone())
    });
    let delivery = agreed(&members, "delivery", findings, |found| Some(found.delivery));
    let redis = agreed(&members, "redis", findings, |found| {
        (found.redis != RedisSubscription::default()).then(|| found.redis.clone())
    });
    let rabbitmq = agreed(&members, "rabbitmq", findings, |found| {
        (found.rabbitmq != RabbitMqSubscription::default()).then(|| found.rabbitmq.clone())
    });

    let mut subscription = Subscription::new(first.topic.clone(), first.group.clone());
    subscription.ordered_by = ordered_by.flatten();
    subscription.start = start.unwrap_or_default();
    subscription.prefetch = prefetch.unwrap_or_else(|| {
        let at_once = first
            .batch
            .map_or(concurrency, |batch| batch.max.max(concurrency));
        u16::try_from(at_once.saturating_mul(2).max(1)).unwrap_or(u16::MAX)
    });
    subscription.dead_letter = dead_letter.or(entry.settings.dead_letter).unwrap_or(true);
    subscription.ladder = Arc::clone(&entry.settings.ladder);
    subscription.topology = topology
        .or(entry.settings.topology)
        .unwrap_or(TopologyMode::Apply);
    subscription.kafka = kafka.unwrap_or_default();
    subscription.rabbitmq = rabbitmq.unwrap_or_default();
    subscription.redis = redis.unwrap_or_default();
    subscription.delivery = delivery.unwrap_or_default();
    if subscription.start == Start::Earliest && entry.kind() == "rabbitmq" {
        let message =
            "has `start = earliest`, which is the same as `new` on RabbitMQ: a queue holds \
                       nothing from before it was made"
                .to_owned();
        let help = "leave `start` out";
        findings.warnings.push(problem(first, message, help));
    }
    too_few_fetched(first, subscription.prefetch, concurrency, findings);

    let subscription = Arc::new(subscription);
    let mut planned = PlannedSubscription::new(subscription, Arc::clone(&first.broker));
    planned.concurrency = concurrency;
    planned.ordered_by = planned.subscription.ordered_by;
    planned.batch = first.batch;
    planned.rate = rate;
    planned.breaker = breaker;
    planned.ack = ack.unwrap_or(Ack::After);
    planned.on_unknown = on_unknown.unwrap_or(OnUnknown::DeadLetter);
    planned.handlers = members.into_iter().map(handler).collect();
    Some(planned)
}

/// A prefetch that keeps handlers idle, or batches small: a warning.
fn too_few_fetched(found: &Use, prefetch: u16, concurrency: u32, findings: &mut Findings) {
    let (wanted, what) = match found.batch {
        Some(batch) => (batch.max, "a batch"),
        None => (concurrency, "`concurrency`"),
    };
    if u32::from(prefetch) < wanted {
        let message = format!("fetches {prefetch} messages ahead, and {what} is {wanted}");
        let help = "leave `prefetch` out for twice as many";
        findings.warnings.push(problem(found, message, help));
    }
}

fn handler(found: Use) -> PlannedHandler {
    let service = Arc::from(found.descriptor.service.name);
    let location = found.descriptor.location;
    let mut handler =
        PlannedHandler::new(found.name, service, found.handler, found.codec, location);
    handler.contracts = found.contracts;
    handler.replies = (found.descriptor.replies)();
    handler.timeout = found.timeout;
    handler.retry = found.retry;
    handler.on_unknown = found.on_unknown.unwrap_or(OnUnknown::DeadLetter);
    handler
}

/// Whether a group is one that other instances share.
pub(super) fn is_shared(group: &Group) -> bool {
    matches!(group, Group::Named(_))
}
