//! What is checked of one subscriber, against its broker and its messages, and of what is
//! published.

use std::time::Duration;

use crate::config::{Section, units::HumanDuration};
use crate::message::{Contract, TopicPattern};
use crate::messaging::settings::SubscriberSettings;
use crate::messaging::{
    Ack, CONCURRENCY_MAX, DeliveryMode, Group, OrderedBy, QueueKind, RetryOptions, Routes, ladder,
};
use crate::registry::SubscriberDescriptor;

use super::admitted::Admitted;
use super::brokers::{Brokers, Entry};
use super::problem::{Place, Problem};
use super::report::rounded;
use super::resolve::Use;
use super::{Findings, meant};

const NEVER_REPEATED: &str =
    "remove them: the message is acknowledged as it arrives, never repeated and never kept";

/// Options that no configuration can put right: written by hand, or by a macro of another version.
pub(super) fn options(
    descriptor: &SubscriberDescriptor,
    settings: &SubscriberSettings,
    section: Option<&Section<'_>>,
    findings: &mut Findings,
) {
    let options = &descriptor.options;
    let mut wrong = |message: String, help: &str| {
        let problem = Problem::new(
            Place::Source(descriptor.location),
            descriptor.name(),
            message,
        );
        findings.problems.push(problem.help(help));
    };
    if let Some(concurrency) = options.concurrency
        && !(1..=CONCURRENCY_MAX).contains(&concurrency)
    {
        let message = format!("`concurrency` must be 1 to {CONCURRENCY_MAX}, not {concurrency}");
        wrong(message, "leave it out for 16");
    }
    if options.timeout == Some(Duration::ZERO) {
        wrong(
            "`timeout` is zero: every attempt would fail at once".to_owned(),
            "leave it out for 30s",
        );
    }
    if let Some(retry) = options.retry {
        if retry.attempts == Some(0) {
            wrong(
                "`retry(attempts = 0)`: the first attempt counts too".to_owned(),
                "write `attempts = 1` for no repeat",
            );
        }
        if retry
            .factor
            .is_some_and(|factor| !(factor >= 1.0 && factor.is_finite()))
        {
            wrong(
                "the `factor` of `retry` must be at least 1".to_owned(),
                "write `factor = 2`",
            );
        }
    }
    if options
        .rate
        .is_some_and(|rate| rate.count == 0 || rate.per.is_zero())
    {
        wrong(
            "`rate` lets nothing through".to_owned(),
            "write for example `rate = \"100/s\"`",
        );
    }
    if options.batch.is_some_and(|batch| batch.max == 0) {
        wrong(
            "`batch(max = 0)` is no batch".to_owned(),
            "write at least 1",
        );
    }
    if options
        .rabbitmq
        .is_some_and(|rabbitmq| rabbitmq.prefetch == Some(0))
    {
        wrong(
            "`prefetch` is zero, which on RabbitMQ means without limit".to_owned(),
            "leave it out for twice the concurrency",
        );
    }
    if options
        .rabbitmq
        .is_some_and(|rabbitmq| rabbitmq.max_priority == Some(0))
    {
        wrong(
            "`max_priority` must be 1 to 255".to_owned(),
            "leave it out for no priorities",
        );
    }
    if options
        .kafka
        .is_some_and(|kafka| kafka.partitions == Some(0) || kafka.replication == Some(0))
    {
        wrong(
            "`partitions` and `replication` are at least 1".to_owned(),
            "leave them out for what the broker's section says",
        );
    }
    if options.delivery == Some(DeliveryMode::AtMostOnce)
        && (options.retry.is_some() || options.dead_letter.is_some() || options.ack.is_some())
    {
        wrong(
            "`delivery = at_most_once` beside `retry`, `dead_letter` or `ack`".to_owned(),
            NEVER_REPEATED,
        );
    }
    if options.batch.is_some() && !descriptor.batch {
        wrong(
            "has `batch(..)` and takes single messages".to_owned(),
            "take `Batch<..>`, or remove `batch(..)`",
        );
    }
    if let Some(section) = section.filter(|_| settings.names_batch() && !descriptor.batch) {
        let message = "is set, and the subscriber takes single messages";
        findings
            .faults
            .push(section.fault("batch", message).with_help("remove it"));
    }
    if let Some(section) = section.filter(|_| options.delivery == Some(DeliveryMode::AtMostOnce)) {
        for (key, is_set) in [
            ("retry", settings.retry != RetryOptions::UNSET),
            ("dead_letter", settings.dead_letter.is_some()),
        ] {
            if is_set {
                let message = "is set, and the subscriber has `delivery = at_most_once`";
                let fault = section.fault(key, message);
                findings.faults.push(fault.with_help(NEVER_REPEATED));
            }
        }
    }
}

/// The segments that the subscriber takes must be in one of its topics.
pub(super) fn segments(
    descriptor: &SubscriberDescriptor,
    topics: &[(TopicPattern, Vec<&'static Contract>)],
    findings: &mut Findings,
) {
    let all: Vec<_> = topics
        .iter()
        .flat_map(|(topic, _)| topic.segments())
        .collect();
    for segment in descriptor.segments {
        if all.contains(segment) {
            continue;
        }
        let listed: Vec<_> = topics
            .iter()
            .map(|(topic, _)| format!("`{topic}`"))
            .collect();
        let problem = Problem::new(
            Place::Source(descriptor.location),
            descriptor.name(),
            format!(
                "takes the segment `{segment}`, which {} has not",
                listed.join(", ")
            ),
        );
        let help = meant(segment, &all).unwrap_or_else(|| match all.as_slice() {
            [] => format!("write `{{{segment}}}` as a part of the topic"),
            all => format!("segments: {}", all.join(", ")),
        });
        findings.problems.push(problem.help(help));
    }
}

/// What the broker cannot do.
pub(super) fn against_broker(found: &Use, entry: &Entry, findings: &mut Findings) {
    let Some(able) = entry.capabilities() else {
        return;
    };
    let on = format!("broker `{}` ({})", entry.name, entry.kind());
    let mut wrong = |message: String, help: &str| {
        let problem = Problem::new(found.place.clone(), &*found.name, message);
        findings.problems.push(problem.help(help));
    };
    if found.topic.is_pattern() && !able.patterns {
        let message = format!(
            "listens to the pattern `{}`, and {on} has no patterns",
            found.topic
        );
        wrong(
            message,
            "name one topic, or route it to a broker that has patterns",
        );
    }
    if found.ordered_by == Some(OrderedBy::Key) && !able.ordered_across_instances {
        let message = format!("`ordered_by = key`, and {on} keeps no order across instances");
        wrong(
            message,
            "write `ordered_by = key_in_process`, or use another broker",
        );
    }
    if (found.descriptor.replies)() && !able.replies {
        let message = format!("answers with a reply, and {on} carries none");
        wrong(
            message,
            "route its topic to a broker that does, or publish the answer as a message",
        );
    }
    if able.at_most_once_only && found.delivery != DeliveryMode::AtMostOnce {
        let message = format!("wants every message, and {on} delivers at most once");
        wrong(
            message,
            "use Streams (`kind = \"redis\"`), or write `delivery = at_most_once` if messages may be lost",
        );
    }
    if found.rabbitmq.max_priority.is_some()
        && found.rabbitmq.queue_kind.unwrap_or(QueueKind::Quorum) != QueueKind::Classic
    {
        wrong(
            "`max_priority` on a quorum queue, which has no priorities of its own".to_owned(),
            "write `queue_kind = classic`, or remove `max_priority`",
        );
    }
    if able.at_most_once_only && matches!(found.group, Group::Named(_)) {
        let message = format!(
            "is in group `{}`, and on {on} every instance gets every message",
            found.group
        );
        let warning = Problem::new(found.place.clone(), &*found.name, message);
        let help = "write `group = each_instance` to say so, or use a broker that has groups";
        findings.warnings.push(warning.help(help));
    }
    if let Some(limit) = able.held_max {
        held_too_long(found, limit, &on, findings);
    }
    for contract in &found.contracts {
        unsupported(contract, entry, findings);
    }
}

/// What is in hand longer than the broker allows goes back, and its attempts are counted anew: it would
/// never be given up.
fn held_too_long(found: &Use, limit: Duration, on: &str, findings: &mut Findings) {
    if found.ack == Ack::OnReceive {
        return;
    }
    let in_lane = found.ordered_by.is_some();
    let waits = if in_lane {
        "all its attempts and the waits between them"
    } else {
        "the attempts that follow each other within a second"
    };
    let help = "lower `timeout` or `retry(..)`, or raise `consumer_timeout` on the server and in the \
                broker's section";
    let at_most = ladder::held_at_most(&found.retry, found.timeout, in_lane);
    // Every failed attempt waits, and the last one may take its time; the others fail sooner as a rule.
    let waits_alone = ladder::held_at_most(&found.retry, Duration::ZERO, in_lane);
    let at_least = waits_alone.saturating_add(found.timeout);
    let message = |held| {
        format!(
            "may have a message in hand for {} ({waits}), and {on} takes it back after {}",
            HumanDuration(held),
            HumanDuration(limit)
        )
    };
    if at_least > limit {
        let problem = Problem::new(found.place.clone(), &*found.name, message(at_least));
        findings.problems.push(problem.help(help));
    } else if at_most > limit {
        let warning = Problem::new(found.place.clone(), &*found.name, message(at_most));
        findings.warnings.push(warning.help(help));
    }
}

/// What the contract asks for and the broker ignores: a warning.
fn unsupported(contract: &'static Contract, entry: &Entry, findings: &mut Findings) {
    let Some(able) = entry.capabilities() else {
        return;
    };
    let mut warn = |what: &str| {
        let place = Place::Source(contract.location);
        let message = format!(
            "has a {what}, and broker `{}` ({}) has none",
            entry.name,
            entry.kind()
        );
        findings
            .warnings
            .push(Problem::new(place, contract.name, message));
    };
    if contract.priority.is_some() && !able.priorities {
        warn("priority");
    }
    if contract.ttl.is_some() && !able.message_ttl {
        warn("time to live");
    }
}

/// What the subscriber asks for and its messages do not have.
pub(super) fn against_contracts(found: &Use, entry: &Entry, findings: &mut Findings) {
    let steps = found.ordered_by.is_none();
    let steps = steps.then_some(&*entry.settings.ladder);
    let longest = ladder::waits(&found.retry, steps).fold(Duration::ZERO, Duration::saturating_add);

    for contract in &found.contracts {
        let mut wrong = |message: String, help: String| {
            let problem = Problem::new(found.place.clone(), &*found.name, message);
            findings.problems.push(problem.help(help));
        };
        if found.ordered_by.is_some() && !contract.keyed {
            let message = format!("`ordered_by` needs a key, and `{}` has none", contract.name);
            wrong(
                message,
                "name the field: `#[message(.., key = order_id)]`".to_owned(),
            );
        }
        if let Some(ttl) = contract.ttl.filter(|ttl| *ttl < longest) {
            let message = format!(
                "retries for up to {}, and `{}` is worth delivering for {}",
                HumanDuration(rounded(longest)),
                contract.name,
                HumanDuration(ttl)
            );
            let help = "lower `retry(attempts = .., max = ..)`, or raise the message's `ttl`";
            wrong(message, help.to_owned());
        }
    }
}

/// What is published and nobody in this program listens to.
pub(super) fn published(
    admitted: &Admitted,
    uses: &[Use],
    routes: &Routes,
    brokers: &Brokers,
    findings: &mut Findings,
) {
    let mut seen: Vec<&'static Contract> = Vec::new();
    for descriptor in admitted.descriptors() {
        let mut contracts = Vec::new();
        (descriptor.publishes)(&mut contracts);
        for contract in contracts {
            if seen.contains(&contract) {
                continue;
            }
            seen.push(contract);
            let Some(entry) = brokers.get(routes.broker(contract.topic)) else {
                let name = routes.broker(contract.topic);
                let message = format!("goes to broker `{name}`, which is not configured");
                let place = Place::Source(contract.location);
                let problem = Problem::new(place, contract.name, message);
                let help = format!("name the broker of `{}` in `[routes]`", contract.topic);
                findings.problems.push(problem.help(help));
                continue;
            };
            unsupported(contract, entry, findings);
            let heard = uses.iter().any(|found| {
                found.broker == entry.name && overlaps(found.topic.as_str(), contract.topic)
            });
            if heard || contract.subscribers_optional {
                continue;
            }
            let able = entry.capabilities();
            let elsewhere = if entry.kind() == "memory" {
                "publishing it fails"
            } else if able.is_some_and(|able| able.reports_unroutable) {
                "publishing it fails unless another service does"
            } else {
                "nobody gets it unless another service does"
            };
            let message = format!(
                "`{}` is published by {} and no subscriber here listens to `{}`; {elsewhere}",
                contract.name,
                descriptor.name(),
                contract.topic
            );
            let place = Place::Source(descriptor.location);
            let warning = Problem::new(place, descriptor.name(), message);
            let help = "if that is fine, write `#[message(.., subscribers = optional)]`";
            findings.warnings.push(warning.help(help));
        }
    }
}

/// Whether two templates can stand for the same topic.
fn overlaps(one: &str, two: &str) -> bool {
    let (mut ours, mut theirs) = (one.split('.'), two.split('.'));
    loop {
        match (ours.next(), theirs.next()) {
            (None, None) => return true,
            (Some(our), Some(their))
                if our == their || our.starts_with('{') || their.starts_with('{') => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_overlap_where_each_segment_can_be_the_same() {
        assert!(overlaps("orders.{region}.placed", "orders.eu.{what}"));
        assert!(!overlaps("orders.{region}", "orders.eu.placed"));
        assert!(!overlaps("orders.eu", "orders.us"));
    }
}
