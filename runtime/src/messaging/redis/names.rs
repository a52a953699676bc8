//! Where a subscription lives on the server. Pure: no name comes from what a redeploy may change.

use crate::messaging::{Group, Subscription};

/// The list of the instances that have a group of their own.
pub(super) const INSTANCES: &str = "instances";

/// The keys of a subscription. Beside its stream they all carry the stream's name as hash tag, so that
/// a cluster keeps them where the stream is.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Names {
    /// The stream that is published to.
    pub(super) stream: String,
    /// The consumer group, of the same name on the stream and on the retries.
    pub(super) group: String,
    /// What the keys of any group on this stream begin with.
    pub(super) begin: String,
    /// The stream of the group's retries, released and sent back messages.
    pub(super) retry: String,
    /// The sorted set of delayed retries.
    pub(super) delayed: String,
    /// The stream of dead letters.
    pub(super) dead_letters: String,
    /// A hash: how far the group is, and the number of its last lease.
    pub(super) state: String,
    /// The lease of the one reader.
    pub(super) lease: String,
    /// The sorted set of the instances that have a group of their own.
    pub(super) register: Option<String>,
}

impl Names {
    pub(super) fn of(prefix: Option<&str>, subscription: &Subscription) -> Self {
        let prefix = prefix.unwrap_or_default();
        let stream = match &subscription.redis.stream {
            Some(stream) => stream.clone(),
            None => format!("{prefix}{}", subscription.topic),
        };
        match &subscription.group {
            Group::Named(group) => {
                let group = match &subscription.redis.group {
                    Some(own) => own.clone(),
                    None => group.to_string(),
                };
                Self::with(stream, group.clone(), &group, None)
            }
            Group::EachInstance {
                service,
                instance,
                subscriber,
            } => {
                let shared = format!("{service}.{subscriber}");
                let group = format!("{shared}.{instance}");
                // Dead letters are shared by the instances, or each run would leave some behind.
                let register = Some(INSTANCES);
                Self::with(stream, group, &shared, register)
            }
        }
    }

    /// The names of a group that is known by stream and group alone.
    pub(super) fn with(
        stream: String,
        group: String,
        shared: &str,
        register: Option<&str>,
    ) -> Self {
        let begin = format!("{}:", tagged(&stream));
        let part = |name: &str| format!("{begin}{group}:{name}");
        Self {
            retry: part("retry"),
            delayed: part("delayed"),
            state: part("state"),
            lease: part("lease"),
            dead_letters: format!("{begin}{shared}:dlq"),
            register: register.map(|name| format!("{begin}{shared}:{name}")),
            begin,
            stream,
            group,
        }
    }

    /// Whose key this is, as stream with a hash tag and group, and which of theirs; `None` for a key
    /// that is not of a group.
    pub(super) fn owner(key: &str) -> Option<(&str, &str)> {
        let (owner, part) = key.rsplit_once(':')?;
        let parts = ["delayed", "dlq", INSTANCES, "lease", "retry", "state"];
        let is_key = parts.contains(&part) && has_tag(owner.rsplit_once(':')?.0);
        is_key.then_some((owner, part))
    }

    /// Whether the group goes with the instance.
    pub(super) fn is_own(&self) -> bool {
        self.register.is_some()
    }
}

/// A name with a hash tag that leads to the slot of `stream`.
fn tagged(stream: &str) -> String {
    if has_tag(stream) {
        stream.to_owned()
    } else {
        format!("{{{stream}}}")
    }
}

fn has_tag(name: &str) -> bool {
    let tag = name.split_once('{');
    let tag = tag.and_then(|(_, rest)| rest.split_once('}'));
    tag.is_some_and(|(tag, _)| !tag.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::TopicPattern;

    fn subscription(group: Group) -> Subscription {
        Subscription::new(TopicPattern::parse("orders.placed").unwrap(), group)
    }

    #[test]
    fn everything_of_a_group_lies_beside_its_stream() {
        let wanted = subscription(Group::Named("billing".into()));
        let names = Names::of(Some("shop."), &wanted);
        assert_eq!(names.stream, "shop.orders.placed");
        assert_eq!(names.group, "billing");
        assert_eq!(names.retry, "{shop.orders.placed}:billing:retry");
        assert_eq!(names.delayed, "{shop.orders.placed}:billing:delayed");
        assert_eq!(names.dead_letters, "{shop.orders.placed}:billing:dlq");
        assert!(!names.is_own());
    }

    #[test]
    fn an_instance_has_a_group_of_its_own_and_shares_the_dead_letters() {
        let wanted = subscription(Group::EachInstance {
            service: "billing".into(),
            instance: "i1".into(),
            subscriber: "refresh".into(),
        });
        let names = Names::of(None, &wanted);
        assert_eq!(names.group, "billing.refresh.i1");
        assert_eq!(names.dead_letters, "{orders.placed}:billing.refresh:dlq");
        let register = names.register.as_deref();
        assert_eq!(register, Some("{orders.placed}:billing.refresh:instances"));
    }

    #[test]
    fn names_of_ones_own_are_taken_as_they_are() {
        let mut wanted = subscription(Group::Named("billing".into()));
        wanted.redis.stream = Some("{eu}:orders".to_owned());
        wanted.redis.group = Some("legacy".to_owned());
        let names = Names::of(Some("shop."), &wanted);
        assert_eq!(names.stream, "{eu}:orders");
        assert_eq!(names.retry, "{eu}:orders:legacy:retry");
        assert_eq!(tagged("a{}b"), "{a{}b}");
    }

    #[test]
    fn a_key_tells_whose_it_is() {
        let owner = Names::owner;
        assert_eq!(
            owner("{a.b}:billing:retry"),
            Some(("{a.b}:billing", "retry"))
        );
        assert_eq!(
            owner("{eu}:orders:old:dlq"),
            Some(("{eu}:orders:old", "dlq"))
        );
        for other in [
            "{a.b}:billing:x",
            "a.b:billing:dlq",
            "{a}:dlq",
            "{}:billing:dlq",
            "t",
        ] {
            assert_eq!(owner(other), None, "{other}");
        }
    }
}
