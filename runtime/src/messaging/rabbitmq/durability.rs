//! What can lose acknowledged messages: told from the queues that the subscriptions name, because
//! a server says nothing over AMQP about its disks and its cluster.

use crate::messaging::{Argument, DurabilityConcern, Group, QueueKind, Subscription};

/// The concerns about one subscription.
pub(super) fn concerns(subscription: &Subscription) -> Vec<DurabilityConcern> {
    let options = &subscription.rabbitmq;
    let argument = |wanted: &str| {
        let mut all = options.arguments.iter();
        all.find_map(|(name, value)| (name == wanted).then_some(value))
    };
    let mut concerns = Vec::new();
    let is_classic = match argument("x-queue-type") {
        Some(Argument::Text(kind)) => *kind == "classic",
        _ => options.queue_kind == Some(QueueKind::Classic),
    };
    if let Group::EachInstance { .. } = subscription.group {
        concerns.push(DurabilityConcern::note(
            "the queue of an instance ends with the instance, or when that was not connected for \
             `instance_queue_expires`, and what it holds with it",
            "name a `group` if nothing may be missed",
        ));
    } else if is_classic {
        concerns.push(DurabilityConcern::note(
            "a classic queue is on one node: what it holds is gone with that node's disk",
            "set `rabbitmq.queue_kind = \"quorum\"`, with a new queue",
        ));
    } else if matches!(argument("x-quorum-initial-group-size"), Some(Argument::Int(size)) if *size < 2)
    {
        concerns.push(DurabilityConcern::note(
            "a quorum queue of one replica is gone with its node's disk",
            "leave out the argument `x-quorum-initial-group-size`, on a cluster of three nodes",
        ));
    }
    if argument("x-expires").is_some() {
        concerns.push(DurabilityConcern::loss(
            "the queue is deleted when nobody has consumed from it for a while (`x-expires`)",
            "leave out the argument `x-expires`, with a new queue",
        ));
    }
    let limited = ["x-max-length", "x-max-length-bytes"]
        .into_iter()
        .find(|name| argument(name).is_some());
    if let Some(limit) = limited {
        let overflow = match argument("x-overflow") {
            Some(Argument::Text(overflow)) => Some(*overflow),
            // What the adapter itself asks for where dead letters are kept.
            _ if subscription.dead_letter && !is_classic => Some("reject-publish"),
            _ => None,
        };
        if !overflow.is_some_and(|overflow| overflow.starts_with("reject-publish")) {
            concerns.push(DurabilityConcern::loss(
                format!("a full queue (`{limit}`) drops its oldest messages"),
                "set the argument `x-overflow` to `reject-publish`, with a new queue",
            ));
        }
    }
    if argument("x-message-ttl").is_some() && !subscription.dead_letter {
        concerns.push(DurabilityConcern::loss(
            "messages that wait too long (`x-message-ttl`) are dropped, and no dead letters are kept",
            "set `dead_letter = true`, with a new queue",
        ));
    }
    let about = |concern: DurabilityConcern| concern.of(&subscription.label);
    concerns.into_iter().map(about).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::TopicPattern;
    use crate::messaging::DurabilityWeight::{Loss, Note};

    fn told(
        change: impl FnOnce(&mut Subscription),
    ) -> Vec<(crate::messaging::DurabilityWeight, String)> {
        let group = Group::Named("billing".into());
        let mut subscription = Subscription::new(TopicPattern::new("orders.placed"), group);
        change(&mut subscription);
        let concerns = concerns(&subscription);
        concerns
            .iter()
            .map(|concern| (concern.weight, concern.to_string()))
            .collect()
    }

    fn with(arguments: &[(&str, Argument)]) -> Vec<(crate::messaging::DurabilityWeight, String)> {
        let given = arguments.iter();
        let arguments = given.map(|(name, value)| ((*name).to_owned(), *value));
        told(|subscription| subscription.rabbitmq.arguments = arguments.collect())
    }

    #[test]
    fn a_quorum_queue_with_dead_letters_is_no_concern() {
        assert_eq!(told(|_| {}), []);
        assert_eq!(with(&[("x-max-length", Argument::Int(5))]), []);
        assert_eq!(
            with(&[("x-quorum-initial-group-size", Argument::Int(3))]),
            []
        );
        assert_eq!(with(&[("x-message-ttl", Argument::Int(5))]), []);
    }

    #[test]
    fn what_was_chosen_or_takes_a_disk_is_a_note() {
        let classic =
            told(|subscription| subscription.rabbitmq.queue_kind = Some(QueueKind::Classic));
        assert_eq!(
            classic,
            [(
                Note,
                "subscription `billing.orders.placed`: a classic queue is on one node: what it holds is \
                 gone with that node's disk; set `rabbitmq.queue_kind = \"quorum\"`, with a new queue"
                    .to_owned()
            )]
        );
        let single = with(&[("x-quorum-initial-group-size", Argument::Int(1))]);
        assert!(
            matches!(&single[..], [(Note, text)] if text.contains("one replica")),
            "{single:?}"
        );
        let each = told(|subscription| {
            subscription.group = Group::EachInstance {
                service: "billing".into(),
                instance: "i-1".into(),
                subscriber: "audit".into(),
            };
        });
        assert!(
            matches!(&each[..], [(Note, text)] if text.contains("ends with the instance")),
            "{each:?}"
        );
    }

    #[test]
    fn what_drops_messages_in_the_ordinary_is_a_loss() {
        let expires = with(&[("x-expires", Argument::Int(60_000))]);
        assert!(
            matches!(&expires[..], [(Loss, text)] if text.contains("`x-expires`")),
            "{expires:?}"
        );
        let drops = with(&[
            ("x-max-length-bytes", Argument::Int(5)),
            ("x-overflow", Argument::Text("drop-head")),
        ]);
        assert!(
            matches!(&drops[..], [(Loss, text)] if text.contains("(`x-max-length-bytes`) drops its oldest")),
            "{drops:?}"
        );
        let late = told(|subscription| {
            subscription.dead_letter = false;
            subscription.rabbitmq.arguments = vec![("x-message-ttl".into(), Argument::Int(5))];
        });
        assert!(
            matches!(&late[..], [(Loss, text)] if text.contains("`x-message-ttl`")),
            "{late:?}"
        );
    }
}
