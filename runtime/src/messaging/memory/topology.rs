//! Queues as data: named, described, and made from their description.

use std::sync::Arc;

use crate::message::TopicPattern;
use crate::messaging::{
    BrokerError, BrokerErrorKind, Group, OrderedBy, Start, Subscription, Topology, TopologyMode,
    TopologyPart,
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

/// Makes what a topology names, or checks it, as the modes say.
pub(super) fn apply(
    state: &mut State,
    link: &Link,
    topology: &Topology,
) -> Result<(), BrokerError> {
    let error = |kind, why: String| BrokerError::new(kind, &link.name, why);
    for part in topology.parts.iter().filter(|part| part.kind == QUEUE) {
        let said = |name: &str| {
            let mut arguments = part.arguments.iter();
            let found = arguments.find(|(known, _)| known == name);
            found.map(|(_, value)| value.as_str())
        };
        let Some(topic) = said("topic") else {
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
        let spec = QueueSpec {
            pattern: TopicPattern::new(topic.to_owned()),
            group: said("group").unwrap_or_default().into(),
            ordered: said("ordered_by") == Some("key"),
            instance: said("instance").map(Arc::from),
        };
        let start = if said("start") == Some("earliest") {
            Start::Earliest
        } else {
            Start::New
        };
        let dead_letter = said("dead_letter") != Some("false");
        let (name, prefix) = (part.name.as_str().into(), link.prefix.clone());
        let grave = grave_name(prefix.as_deref(), &spec);
        state
            .ensure_queue(name, &grave, prefix, spec, dead_letter, start)
            .map_err(|why| error(BrokerErrorKind::TopologyConflict, why))?;
    }
    state.attach_failed();
    Ok(())
}
