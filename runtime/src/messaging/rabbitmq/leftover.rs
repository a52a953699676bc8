//! What an earlier form of the service made and nothing declares any more, found in the lists of the management
//! API.
//!
//! A name alone does not say whose a queue is: `billing.eu.orders` is that of topic `eu.orders` in group
//! `billing`, or of topic `orders` in group `billing.eu`. Its binding does: ours is bound by its own topic.

use std::collections::{BTreeMap, BTreeSet};

use super::management::{Binding, Listed};
use super::topology::{Part, Value};

/// What is left, by name.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Found {
    pub(super) queues: Vec<String>,
    /// Bindings of queues that are declared, as a topology shows them.
    pub(super) bindings: Vec<String>,
    /// Dead letters whose queue is gone, so that nothing tells whose they are.
    pub(super) doubtful: Vec<String>,
}

/// Whose queues are looked for.
pub(super) struct Ours<'a> {
    pub(super) prefix: &'a str,
    pub(super) service: &'a str,
    pub(super) declared: &'a [Part],
}

impl Ours<'_> {
    pub(super) fn find(&self, listed: &Listed) -> Found {
        let groups = self.groups();
        let declared: BTreeSet<&str> = self.declared.iter().filter_map(queue_name).collect();
        let mut bound: BTreeMap<&str, Vec<&Binding>> = BTreeMap::new();
        for binding in &listed.bindings {
            if binding.destination_type == "queue" && !binding.source.is_empty() {
                bound.entry(&binding.destination).or_default().push(binding);
            }
        }
        let is_bound_by = |name: &str, topic: &str| {
            let key = with_wildcards(topic);
            bound
                .get(name)
                .is_some_and(|all| all.iter().any(|binding| binding.routing_key == key))
        };
        let names: BTreeSet<&str> = listed
            .queues
            .iter()
            .filter(|queue| !queue.exclusive && !declared.contains(queue.name.as_str()))
            .map(|queue| queue.name.as_str())
            .collect();
        let was_ours = |name: &str| {
            self.topics(&groups, name)
                .any(|topic| is_bound_by(name, topic))
        };
        let mut found = Found::default();
        for name in &names {
            let name = *name;
            if let Some(queue) = name.strip_suffix(".dlq") {
                // Of a queue that is there it is ours if the queue is.
                let of_declared = declared.contains(queue) && self.is_default(&groups, queue);
                if of_declared || was_ours(queue) {
                    found.queues.push(name.to_owned());
                } else if !names.contains(queue)
                    && !declared.contains(queue)
                    && self.topics(&groups, queue).next().is_some()
                {
                    found.doubtful.push(name.to_owned());
                }
            } else if let Some((queue, _)) = delayed(name) {
                // Those of a declared queue are made when they are needed, and empty by themselves.
                if !declared.contains(queue) && was_ours(queue) {
                    found.queues.push(name.to_owned());
                }
            } else if was_ours(name) {
                found.queues.push(name.to_owned());
            }
        }
        for part in self.declared {
            let Some(queue) = queue_name(part).filter(|queue| self.is_default(&groups, queue))
            else {
                continue;
            };
            for binding in bound.get(queue).into_iter().flatten() {
                if !self.declared.iter().any(|part| is(part, binding)) {
                    let (source, key) = (&binding.source, &binding.routing_key);
                    found.bindings.push(format!("{queue} <- {source} ({key})"));
                }
            }
        }
        found
    }

    /// The groups that our queues are called after.
    fn groups(&self) -> BTreeSet<String> {
        let mut groups = BTreeSet::from([self.service.to_owned()]);
        for part in self.declared {
            let Part::Binding { queue, key, .. } = part else {
                continue;
            };
            let name = queue.strip_prefix(self.prefix).unwrap_or(queue);
            let dots = name.match_indices('.');
            let mut parts = dots.map(|(at, _)| (&name[..at], &name[at + 1..]));
            if let Some((group, _)) = parts.find(|(_, topic)| with_wildcards(topic) == *key) {
                groups.insert(group.to_owned());
            }
        }
        groups
    }

    /// What the topic of a queue with this name would be, by each of our groups.
    fn topics<'n>(
        &self,
        groups: &'n BTreeSet<String>,
        name: &'n str,
    ) -> impl Iterator<Item = &'n str> {
        let name = name.strip_prefix(self.prefix);
        groups.iter().filter_map(move |group| {
            let topic = name?.strip_prefix(group.as_str())?.strip_prefix('.')?;
            (!topic.is_empty()).then_some(topic)
        })
    }

    /// Whether a declared queue has the name that we give, and not one of its owner's choice: then others may have
    /// bound it too.
    fn is_default(&self, groups: &BTreeSet<String>, queue: &str) -> bool {
        self.declared.iter().any(|part| {
            let Part::Binding { queue: of, key, .. } = part else {
                return false;
            };
            of == queue
                && self
                    .topics(groups, queue)
                    .any(|topic| with_wildcards(topic) == *key)
        })
    }
}

/// Whether a declared part is this binding.
pub(super) fn is(part: &Part, binding: &Binding) -> bool {
    let (to, from, key, kind, arguments) = match part {
        Part::Binding {
            queue,
            exchange,
            key,
            arguments,
        } => (queue, exchange, key, "queue", arguments.as_slice()),
        Part::Chain { to, from, key } => (to, from, key, "exchange", &[][..]),
        Part::Exchange { .. } | Part::Queue { .. } => return false,
    };
    binding.destination == *to
        && binding.source == *from
        && binding.routing_key == *key
        && binding.destination_type == kind
        && binding.arguments.len() == arguments.len()
        && arguments.iter().all(|(name, value)| {
            let value = match value {
                Value::Bool(value) => serde_json::Value::from(*value),
                Value::Int(value) => serde_json::Value::from(*value),
                Value::Text(text) => serde_json::Value::from(text.as_str()),
            };
            binding.arguments.get(name) == Some(&value)
        })
}

/// The name of a queue that is not of one instance.
fn queue_name(part: &Part) -> Option<&str> {
    match part {
        Part::Queue {
            name,
            of_instance: false,
            ..
        } => Some(name),
        _ => None,
    }
}

/// The queue that a retry waits for here, and how long.
fn delayed(name: &str) -> Option<(&str, &str)> {
    let (queue, rung) = name.rsplit_once(".retry.")?;
    let digits = rung.trim_end_matches(|letter: char| letter.is_ascii_lowercase());
    let unit = &rung[digits.len()..];
    let is_rung = !digits.is_empty()
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && ["ms", "s", "m", "h"].contains(&unit);
    is_rung.then_some((queue, rung))
}

/// A topic as the key of its binding: each field is a `*`.
fn with_wildcards(topic: &str) -> String {
    let segments = topic.split('.').map(|segment| {
        if segment.starts_with('{') && segment.ends_with('}') {
            "*"
        } else {
            segment
        }
    });
    segments.collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::message::TopicPattern;
    use crate::messaging::rabbitmq::management::Queue;
    use crate::messaging::rabbitmq::topology::parts;
    use crate::messaging::{Group, Subscription};

    fn subscription(topic: &'static str, group: &str) -> Subscription {
        Subscription::new(TopicPattern::new(topic), Group::Named(group.into()))
    }

    fn declared(subscriptions: &[Subscription]) -> Vec<Part> {
        let all = subscriptions.iter();
        all.flat_map(|one| parts(Some("eu."), "interline", Duration::from_secs(600), one))
            .collect()
    }

    /// A virtual host with these queues, each bound by a key.
    fn listed(queues: &[(&str, &str)]) -> Listed {
        let binding = |source: &str, queue: &str, key: &str| Binding {
            source: source.to_owned(),
            destination: queue.to_owned(),
            destination_type: "queue".to_owned(),
            routing_key: key.to_owned(),
            arguments: serde_json::Map::new(),
        };
        let mut listed = Listed {
            queues: Vec::new(),
            bindings: Vec::new(),
        };
        for (name, key) in queues {
            listed.queues.push(Queue {
                name: (*name).to_owned(),
                exclusive: false,
            });
            listed.bindings.push(binding("", name, name));
            if !key.is_empty() {
                listed.bindings.push(binding("interline", name, key));
            }
        }
        listed
    }

    fn find(subscriptions: &[Subscription], queues: &[(&str, &str)]) -> Found {
        let ours = Ours {
            prefix: "eu.",
            service: "billing",
            declared: &declared(subscriptions),
        };
        ours.find(&listed(queues))
    }

    #[test]
    fn a_topic_that_is_read_no_more_leaves_its_queues() {
        let now = [subscription("orders.placed", "billing")];
        let found = find(
            &now,
            &[
                ("eu.billing.orders.placed", "orders.placed"),
                ("eu.billing.orders.placed.dlq", ""),
                ("eu.billing.orders.placed.retry.5s", ""),
                ("eu.billing.orders.{id}.paid", "orders.*.paid"),
                ("eu.billing.orders.{id}.paid.dlq", ""),
                ("eu.billing.orders.{id}.paid.retry.5s", ""),
            ],
        );
        assert_eq!(
            found.queues,
            [
                "eu.billing.orders.{id}.paid",
                "eu.billing.orders.{id}.paid.dlq",
                "eu.billing.orders.{id}.paid.retry.5s",
            ]
        );
        assert_eq!((found.bindings.len(), found.doubtful.len()), (0, 0));
    }

    #[test]
    fn what_others_made_is_not_ours() {
        let now = [
            subscription("orders.placed", "billing"),
            subscription("audit", "finance.books"),
        ];
        let found = find(
            &now,
            &[
                // Of group `billing.us`, of no prefix, of another group, made by hand.
                ("eu.billing.us.orders", "orders"),
                ("eu.billing.us.orders.dlq", ""),
                ("billing.orders.paid", "orders.paid"),
                ("eu.shipping.orders.placed", "orders.placed"),
                ("eu.billing.notes", ""),
                ("interline.wait.8s", "~wait.1"),
            ],
        );
        assert_eq!(found, Found::default());
        // A group of another name is known by what is declared.
        let found = find(&now, &[("eu.finance.books.old", "old")]);
        assert_eq!(found.queues, ["eu.finance.books.old"]);
    }

    #[test]
    fn dead_letters_that_nobody_writes_any_more_are_told() {
        let mut now = subscription("orders.placed", "billing");
        now.dead_letter = false;
        let found = find(
            &[now],
            &[
                ("eu.billing.orders.placed", "orders.placed"),
                ("eu.billing.orders.placed.dlq", ""),
                ("eu.billing.gone.dlq", ""),
            ],
        );
        assert_eq!(found.queues, ["eu.billing.orders.placed.dlq"]);
        assert_eq!(found.doubtful, ["eu.billing.gone.dlq"]);
    }

    #[test]
    fn a_binding_that_is_declared_no_more_is_told_where_the_queue_is_ours_alone() {
        let mut theirs = subscription("legacy", "billing");
        theirs.rabbitmq.queue = Some("legacy".into());
        let now = [subscription("orders.placed", "billing"), theirs];
        let mut listed = listed(&[
            ("eu.billing.orders.placed", "orders.placed"),
            ("legacy", "legacy"),
        ]);
        for queue in ["eu.billing.orders.placed", "legacy"] {
            listed.bindings.push(Binding {
                source: "shop".to_owned(),
                destination: queue.to_owned(),
                destination_type: "queue".to_owned(),
                routing_key: "orders.#".to_owned(),
                arguments: serde_json::Map::new(),
            });
        }
        let ours = Ours {
            prefix: "eu.",
            service: "billing",
            declared: &declared(&now),
        };
        let found = ours.find(&listed);
        assert_eq!(
            found.bindings,
            ["eu.billing.orders.placed <- shop (orders.#)"]
        );
        assert_eq!(found.queues, [""; 0]);
    }

    #[test]
    fn a_binding_is_declared_only_with_its_arguments() {
        let mut with = subscription("orders", "billing");
        with.rabbitmq.binding_arguments =
            vec![("x-match".into(), crate::messaging::Argument::Text("all"))];
        let parts = declared(&[with]);
        let binding = parts
            .iter()
            .find(|part| matches!(part, Part::Binding { .. }));
        let binding = binding.unwrap();
        let mut listed = listed(&[("eu.billing.orders", "orders")])
            .bindings
            .remove(1);
        assert!(!is(binding, &listed));
        listed.arguments.insert("x-match".into(), "all".into());
        assert!(is(binding, &listed));
    }
}
