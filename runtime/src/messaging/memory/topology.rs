//! Queues as data: named, described, and made from their description.

use std::sync::Arc;

use crate::message::TopicPattern;
use crate::messaging::{
    BrokerError, BrokerErrorKind, Difference, Group, Inspection, Leftover, OrderedBy, Start,
    Subscription, Topology, TopologyMode, TopologyPart,
};

use super::broker::Link;
use super::queue::QueueSpec;
use super::state::State;

/// The one kind of part there is.
const QUEUE: &str = "queue";

/// The name of a subscription's queue.
pub(super) fn queue_name(prefix: Option<&str>, subscription: &Subscription) -> Arc<str> {
    let topic = &subscription.topic;
    let name = match &subscription.group {
        Group::Named(group) => format!("{group}.{topic}"),
        Group::EachInstance {
            service,
            instance,
            subscriber,
        } => format!("{service}.{subscriber}.{instance}.{topic}"),
    };
    match prefix {
        None => name.into(),
        Some(prefix) => format!("{prefix}{name}").into(),
    }
}

/// The name under which the dead letters of a queue lie. The instances of a subscriber share it, so
/// that they are found when the instance is gone.
pub(super) fn grave_name(prefix: Option<&str>, spec: &QueueSpec) -> String {
    let prefix = prefix.unwrap_or_default();
    format!("{prefix}{}.{}", spec.group, spec.pattern)
}

/// What a subscription's queue is.
pub(super) fn queue_spec(subscription: &Subscription) -> QueueSpec {
    let (group, instance) = match &subscription.group {
        Group::Named(group) => (Arc::clone(group), None),
        Group::EachInstance {
            service,
            instance,
            subscriber,
        } => (
            format!("{service}.{subscriber}").into(),
            Some(Arc::clone(instance)),
        ),
    };
    QueueSpec {
        pattern: subscription.topic.clone(),
        group,
        ordered: subscription.ordered_by == Some(OrderedBy::Key),
        instance,
    }
}

/// What has to exist for these subscriptions.
pub(super) fn describe(prefix: Option<&str>, subscriptions: &[Arc<Subscription>]) -> Topology {
    let part = |subscription: &Arc<Subscription>| {
        let name = queue_name(prefix, subscription);
        let spec = queue_spec(subscription);
        let mut part = TopologyPart::new(QUEUE, &*name, subscription.topology);
        part.subscription = Some(Arc::clone(&subscription.label));
        let mut say = |name: &str, value: &str| {
            part.arguments.push((name.to_owned(), value.to_owned()));
        };
        say("topic", spec.pattern.as_str());
        say("group", &spec.group);
        if let Some(instance) = &spec.instance {
            say("instance", instance);
        }
        if spec.ordered {
            say("ordered_by", "key");
        }
        if subscription.start == Start::Earliest {
            say("start", "earliest");
        }
        if !subscription.dead_letter {
            say("dead_letter", "false");
        }
        part
    };
    Topology::new(subscriptions.iter().map(part).collect())
}

/// Compares the queues that are there with those that a topology names. Of the others, those under
/// the same prefix of names are left over, unless they go with an instance.
pub(super) fn inspect(state: &State, link: &Link, topology: &Topology) -> Inspection {
    let mut inspection = Inspection::default();
    for part in topology.parts.iter().filter(|part| part.kind == QUEUE) {
        let there = state.queue_called(&part.name);
        match there.and_then(|at| state.queues.get(at)) {
            None => inspection.missing.push(part.clone()),
            Some(queue) => {
                let wanted = spec_of(part).unwrap_or_else(|| queue.spec.clone());
                if wanted != queue.spec {
                    let what = super::state::difference(queue, &wanted);
                    inspection
                        .different
                        .push(Difference::new(part.clone(), what));
                }
            }
        }
    }
    let declared = |name: &str| topology.parts.iter().any(|part| part.name == name);
    let left = state.queues.iter().map(|(_, queue)| queue);
    let left = left.filter(|queue| {
        queue.prefix == link.prefix && queue.spec.instance.is_none() && !declared(&queue.name)
    });
    inspection.leftover = left
        .map(|queue| Leftover::new(QUEUE, &*queue.name).depth(queue.depth() as u64))
        .collect();
    inspection
        .leftover
        .sort_by(|one, two| one.name.cmp(&two.name));
    inspection
}

fn said<'a>(part: &'a TopologyPart, name: &str) -> Option<&'a str> {
    let mut arguments = part.arguments.iter();
    let found = arguments.find(|(known, _)| known == name);
    found.map(|(_, value)| value.as_str())
}

/// The queue that a part describes; `None` if it names no topic.
fn spec_of(part: &TopologyPart) -> Option<QueueSpec> {
    Some(QueueSpec {
        pattern: TopicPattern::new(said(part, "topic")?.to_owned()),
        group: said(part, "group").unwrap_or_default().into(),
        ordered: said(part, "ordered_by") == Some("key"),
        instance: said(part, "instance").map(Arc::from),
    })
}

/// Makes what a topology names, or checks it, as the modes say.
pub(super) fn apply(
    state: &mut State,
    link: &Link,
    topology: &Topology,
) -> Result<(), BrokerError> {
    let error = |kind, why: String| BrokerError::new(kind, &link.name, why);
    for part in topology.parts.iter().filter(|part| part.kind == QUEUE) {
        let Some(spec) = spec_of(part) else {
            let why = format!("queue `{}` has no argument `topic`", part.name);
            return Err(error(BrokerErrorKind::Configuration, why));
        };
        if state.options.strict_topology && part.mode != TopologyMode::Apply {
            if part.mode == TopologyMode::Verify && state.queue_called(&part.name).is_none() {
                let why = format!("queue `{}` is missing", part.name);
                return Err(error(BrokerErrorKind::NotFound, why));
            }
            continue;
        }
        let start = if said(part, "start") == Some("earliest") {
            Start::Earliest
        } else {
            Start::New
        };
        let dead_letter = said(part, "dead_letter") != Some("false");
        let (name, prefix) = (part.name.as_str().into(), link.prefix.clone());
        let grave = grave_name(prefix.as_deref(), &spec);
        state
            .ensure_queue(name, &grave, prefix, spec, dead_letter, start)
            .map_err(|why| error(BrokerErrorKind::TopologyConflict, why))?;
    }
    state.attach_failed();
    Ok(())
}
