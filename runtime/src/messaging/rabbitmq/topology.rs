//! What has to exist on the server for a subscription. Pure: no argument comes from anything that a
//! redeploy may change.

use std::time::Duration;

use crate::messaging::{
    Argument, ExchangeKind, Group, OrderedBy, QueueKind, Subscription, Topology, TopologyMode,
    TopologyPart,
};

/// How often a quorum queue hands a message out before it takes it for one that kills its consumers.
const DELIVERY_LIMIT: i64 = 20;
/// Dead letters are read again and again by people and tools; RabbitMQ 4 drops after 20 times
/// unless told otherwise, and no version takes "never".
const DELIVERY_LIMIT_NONE: i64 = 2_000_000_000;
/// How long a queue stays that nobody reads from.
const EXPIRES: &str = "x-expires";
/// AMQP's longest name.
const NAME_BYTES_MAX: usize = 255;

/// An argument of a queue or binding.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Bool(bool),
    Int(i64),
    Text(String),
}

impl From<&Argument> for Value {
    fn from(argument: &Argument) -> Self {
        match argument {
            Argument::Bool(value) => Self::Bool(*value),
            Argument::Int(value) => Self::Int(*value),
            Argument::Text(text) => Self::Text((*text).to_owned()),
        }
    }
}

impl Value {
    /// As it stands in a readable topology; [`Value::parse`] reads it again.
    fn shown(&self) -> String {
        match self {
            Self::Bool(value) => value.to_string(),
            Self::Int(value) => value.to_string(),
            Self::Text(text) => format!("\"{text}\""),
        }
    }

    fn parse(text: &str) -> Self {
        match text
            .strip_prefix('"')
            .and_then(|text| text.strip_suffix('"'))
        {
            Some(text) => Self::Text(text.to_owned()),
            None => match (text.parse(), text.parse()) {
                (Ok(value), _) => Self::Int(value),
                (_, Ok(value)) => Self::Bool(value),
                _ => Self::Text(text.to_owned()),
            },
        }
    }
}

pub(super) type Arguments = Vec<(String, Value)>;

/// One thing to declare.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Part {
    Exchange {
        name: String,
        kind: ExchangeKind,
    },
    Queue {
        name: String,
        /// Of this instance alone.
        of_instance: bool,
        arguments: Arguments,
    },
    Binding {
        queue: String,
        exchange: String,
        key: String,
        arguments: Arguments,
    },
    /// A binding of one exchange to another.
    Chain {
        to: String,
        from: String,
        key: String,
    },
}

/// Where a subscription lives on the server.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Names {
    pub(super) queue: String,
    pub(super) dead_letters: String,
    /// Of this instance alone: its queue ends with it, or by itself when it was away for too long.
    pub(super) of_instance: bool,
}

pub(super) fn names(prefix: Option<&str>, subscription: &Subscription) -> Names {
    let prefix = prefix.unwrap_or_default();
    match &subscription.group {
        Group::EachInstance {
            service,
            instance,
            subscriber,
        } => {
            let topic = &subscription.topic;
            let shared = format!("{prefix}{service}.{subscriber}.{topic}");
            Names {
                queue: format!("{shared}.{instance}"),
                // Shared by the instances, or each run would leave a queue behind.
                dead_letters: format!("{shared}.dlq"),
                of_instance: true,
            }
        }
        Group::Named(group) => {
            let queue = match &subscription.rabbitmq.queue {
                Some(queue) => queue.clone(),
                None => format!("{prefix}{group}.{}", subscription.topic),
            };
            Names {
                dead_letters: format!("{queue}.dlq"),
                queue,
                of_instance: false,
            }
        }
    }
}

/// The name of the queue in which a retry waits for `delay`.
pub(super) fn delay_queue_name(queue: &str, delay: Duration) -> String {
    format!("{queue}.retry.{}", rung(delay))
}

/// A delay as people write it: `5s`, `2m`, `1h`, `1500ms`.
fn rung(delay: Duration) -> String {
    let millis = delay.as_millis().max(1);
    let units = [(3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    match units.iter().find(|(size, _)| millis.is_multiple_of(*size)) {
        Some((size, unit)) => format!("{}{unit}", millis / size),
        None => format!("{millis}ms"),
    }
}

/// The queue in which a retry waits for `delay` and from which it goes back to its own queue only. That
/// of an instance lasts for `expires` longer than what was put there when it was made, or made again.
pub(super) fn delay_queue(names: &Names, delay: Duration, expires: Duration) -> Part {
    let millis = i64::try_from(delay.as_millis().max(1)).unwrap_or(i64::MAX);
    let mut arguments = vec![
        ("x-message-ttl".to_owned(), Value::Int(millis)),
        ("x-dead-letter-exchange".to_owned(), text("")),
        ("x-dead-letter-routing-key".to_owned(), text(&names.queue)),
    ];
    if names.of_instance {
        // Nobody reads from it, so it lives from one declaration to the next, which a quorum queue takes
        // no notice of.
        arguments.push((EXPIRES.to_owned(), millis_of(delay + expires)));
    } else {
        arguments.extend(quorum());
        arguments.extend(at_least_once());
    }
    Part::Queue {
        name: delay_queue_name(&names.queue, delay),
        of_instance: names.of_instance,
        arguments,
    }
}

/// The queue in which scheduled messages wait for `wait`, and from which they go on to `exchange`.
pub(super) fn wait_queue(name: &str, wait: Duration, exchange: &str) -> Part {
    let millis = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
    let mut arguments: Arguments = quorum().into();
    arguments.push(("x-message-ttl".to_owned(), Value::Int(millis)));
    arguments.push(("x-dead-letter-exchange".to_owned(), text(exchange)));
    arguments.extend(at_least_once());
    Part::Queue {
        name: name.to_owned(),
        of_instance: false,
        arguments,
    }
}

/// The queue that keeps what was given up.
pub(super) fn dead_letter_queue(names: &Names) -> Part {
    let mut arguments: Arguments = quorum().into();
    arguments.push((
        "x-delivery-limit".to_owned(),
        Value::Int(DELIVERY_LIMIT_NONE),
    ));
    Part::Queue {
        name: names.dead_letters.clone(),
        of_instance: false,
        arguments,
    }
}

/// Everything of a subscription, in the order in which it is made, but for the delay queues, which
/// are made when they are first used.
pub(super) fn parts(
    prefix: Option<&str>,
    exchange: &str,
    expires: Duration,
    subscription: &Subscription,
) -> Vec<Part> {
    let names = names(prefix, subscription);
    let options = &subscription.rabbitmq;
    let mut parts = Vec::new();
    let exchange = options.exchange.as_deref().unwrap_or(exchange);
    // The default exchange and those that begin with `amq.` are the server's own.
    if !exchange.is_empty() && !exchange.starts_with("amq.") {
        parts.push(Part::Exchange {
            name: exchange.to_owned(),
            kind: options.exchange_kind.unwrap_or(ExchangeKind::Topic),
        });
    }
    if subscription.dead_letter {
        parts.push(dead_letter_queue(&names));
    }
    parts.push(Part::Queue {
        name: names.queue.clone(),
        of_instance: names.of_instance,
        arguments: queue_arguments(&names, expires, subscription),
    });
    if !exchange.is_empty() {
        let key = match &options.binding {
            Some(key) => key.clone(),
            None => subscription.topic.with_wildcard("*"),
        };
        parts.push(Part::Binding {
            queue: names.queue,
            exchange: exchange.to_owned(),
            key,
            arguments: own(&options.binding_arguments),
        });
    }
    parts
}

fn queue_arguments(names: &Names, expires: Duration, subscription: &Subscription) -> Arguments {
    let options = &subscription.rabbitmq;
    let is_quorum = options.queue_kind != Some(QueueKind::Classic);
    let mut arguments = Vec::new();
    if names.of_instance {
        arguments.push((EXPIRES.to_owned(), millis_of(expires)));
    }
    if is_quorum {
        arguments.extend(quorum());
        arguments.push(("x-delivery-limit".to_owned(), Value::Int(DELIVERY_LIMIT)));
    }
    if subscription.dead_letter {
        arguments.push(("x-dead-letter-exchange".to_owned(), text("")));
        arguments.push((
            "x-dead-letter-routing-key".to_owned(),
            text(&names.dead_letters),
        ));
        if is_quorum {
            arguments.extend(at_least_once());
        }
    }
    if subscription.ordered_by == Some(OrderedBy::Key) && !names.of_instance {
        arguments.push(("x-single-active-consumer".to_owned(), Value::Bool(true)));
    }
    if let Some(priority) = options.max_priority.filter(|_| !is_quorum) {
        arguments.push(("x-max-priority".to_owned(), Value::Int(i64::from(priority))));
    }
    for (name, value) in own(&options.arguments) {
        match arguments.iter_mut().find(|(known, _)| *known == name) {
            Some((_, slot)) => *slot = value,
            None => arguments.push((name, value)),
        }
    }
    arguments
}

fn own(arguments: &[(String, Argument)]) -> Arguments {
    arguments
        .iter()
        .map(|(name, value)| (name.clone(), value.into()))
        .collect()
}

fn text(value: &str) -> Value {
    Value::Text(value.to_owned())
}

fn millis_of(duration: Duration) -> Value {
    Value::Int(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX))
}

fn quorum() -> [(String, Value); 1] {
    [("x-queue-type".to_owned(), text("quorum"))]
}

fn at_least_once() -> [(String, Value); 2] {
    [
        ("x-dead-letter-strategy".to_owned(), text("at-least-once")),
        ("x-overflow".to_owned(), text("reject-publish")),
    ]
}

/// The first name that AMQP cannot carry.
pub(super) fn too_long(names: &Names) -> Option<String> {
    let longest = format!("{}.retry.3600000ms", names.queue);
    [&names.dead_letters, &longest]
        .into_iter()
        .find(|name| name.len() > NAME_BYTES_MAX)
        .cloned()
}

/// The parts of several subscriptions, readable. What serves several stands once.
pub(super) fn readable<'a>(
    prefix: Option<&str>,
    exchange: &str,
    expires: Duration,
    subscriptions: impl Iterator<Item = &'a Subscription>,
) -> Topology {
    let mut all: Vec<TopologyPart> = Vec::new();
    for subscription in subscriptions {
        for part in parts(prefix, exchange, expires, subscription) {
            let mut shown = show(&part, subscription.topology);
            if !matches!(part, Part::Exchange { .. }) {
                shown.subscription = Some(subscription.label.clone());
            }
            if !all.contains(&shown) {
                all.push(shown);
            }
        }
    }
    Topology::new(all)
}

const KIND: &str = "type";
const OF_INSTANCE: &str = "of one instance";
const QUEUE: &str = "queue";
const EXCHANGE: &str = "exchange";
const KEY: &str = "key";
const CHAIN: &str = "exchange binding";
const TO: &str = "to";

fn show(part: &Part, mode: TopologyMode) -> TopologyPart {
    let shown = |arguments: &Arguments| -> Vec<(String, String)> {
        arguments
            .iter()
            .map(|(name, value)| (name.clone(), value.shown()))
            .collect()
    };
    match part {
        Part::Exchange { name, kind } => {
            let mut shown = TopologyPart::new(EXCHANGE, name.as_str(), mode);
            shown.arguments = vec![(KIND.to_owned(), exchange_kind(*kind).to_owned())];
            shown
        }
        Part::Queue {
            name,
            of_instance,
            arguments,
        } => {
            let mut part = TopologyPart::new(QUEUE, name.as_str(), mode);
            part.arguments = shown(arguments);
            if *of_instance {
                part.arguments
                    .push((OF_INSTANCE.to_owned(), "true".to_owned()));
            }
            part
        }
        Part::Binding {
            queue,
            exchange,
            key,
            arguments,
        } => {
            let name = format!("{queue} <- {exchange} ({key})");
            let mut part = TopologyPart::new("binding", name, mode);
            part.arguments = vec![
                (QUEUE.to_owned(), queue.clone()),
                (EXCHANGE.to_owned(), exchange.clone()),
                (KEY.to_owned(), key.clone()),
            ];
            part.arguments.extend(shown(arguments));
            part
        }
        Part::Chain { to, from, key } => {
            let name = format!("{to} <- {from} ({key})");
            let mut part = TopologyPart::new(CHAIN, name, mode);
            part.arguments = vec![
                (TO.to_owned(), to.clone()),
                (EXCHANGE.to_owned(), from.clone()),
                (KEY.to_owned(), key.clone()),
            ];
            part
        }
    }
}

/// What a readable part stands for; `None` if it is none of this adapter's.
pub(super) fn read(part: &TopologyPart) -> Option<Part> {
    let find = |name: &str| {
        let (_, value) = part.arguments.iter().find(|(known, _)| known == name)?;
        Some(value.clone())
    };
    let rest = |without: &[&str]| -> Arguments {
        part.arguments
            .iter()
            .filter(|(name, _)| !without.contains(&name.as_str()))
            .map(|(name, value)| (name.clone(), Value::parse(value)))
            .collect()
    };
    Some(match part.kind {
        EXCHANGE => Part::Exchange {
            name: part.name.clone(),
            kind: match find(KIND)?.as_str() {
                "direct" => ExchangeKind::Direct,
                "fanout" => ExchangeKind::Fanout,
                "headers" => ExchangeKind::Headers,
                "topic" => ExchangeKind::Topic,
                _ => return None,
            },
        },
        QUEUE => Part::Queue {
            name: part.name.clone(),
            of_instance: find(OF_INSTANCE).is_some(),
            arguments: rest(&[OF_INSTANCE]),
        },
        "binding" => Part::Binding {
            queue: find(QUEUE)?,
            exchange: find(EXCHANGE)?,
            key: find(KEY)?,
            arguments: rest(&[QUEUE, EXCHANGE, KEY]),
        },
        CHAIN => Part::Chain {
            to: find(TO)?,
            from: find(EXCHANGE)?,
            key: find(KEY)?,
        },
        _ => return None,
    })
}

pub(super) fn exchange_kind(kind: ExchangeKind) -> &'static str {
    match kind {
        ExchangeKind::Direct => "direct",
        ExchangeKind::Fanout => "fanout",
        ExchangeKind::Headers => "headers",
        ExchangeKind::Topic => "topic",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::TopicPattern;

    const EXPIRES_AFTER: Duration = Duration::from_secs(600);

    fn subscription(topic: &'static str) -> Subscription {
        Subscription::new(TopicPattern::new(topic), Group::Named("billing".into()))
    }

    fn arguments(part: &Part) -> Vec<String> {
        match part {
            Part::Queue { arguments, .. } | Part::Binding { arguments, .. } => arguments
                .iter()
                .map(|(name, value)| format!("{name}={}", value.shown()))
                .collect(),
            Part::Exchange { .. } | Part::Chain { .. } => Vec::new(),
        }
    }

    #[test]
    fn the_default_is_a_bound_quorum_queue_with_a_crash_guard_and_dead_letters() {
        let parts = parts(
            Some("eu."),
            "interline",
            EXPIRES_AFTER,
            &subscription("orders.{region}.placed"),
        );
        let queue = "eu.billing.orders.{region}.placed";
        assert!(
            matches!(&parts[0], Part::Exchange { name, kind: ExchangeKind::Topic } if name == "interline")
        );
        assert!(matches!(&parts[1], Part::Queue { name, .. } if *name == format!("{queue}.dlq")));
        assert!(matches!(&parts[2], Part::Queue { name, of_instance: false, .. } if name == queue));
        assert_eq!(
            arguments(&parts[2]),
            [
                "x-queue-type=\"quorum\"".to_owned(),
                "x-delivery-limit=20".to_owned(),
                "x-dead-letter-exchange=\"\"".to_owned(),
                format!("x-dead-letter-routing-key=\"{queue}.dlq\""),
                "x-dead-letter-strategy=\"at-least-once\"".to_owned(),
                "x-overflow=\"reject-publish\"".to_owned(),
            ]
        );
        assert!(matches!(&parts[3], Part::Binding { key, .. } if key == "orders.*.placed"));
    }

    #[test]
    fn nothing_depends_on_what_a_redeploy_may_change() {
        let before = subscription("orders.placed");
        let mut after = before.clone();
        after.prefetch = 1_000;
        after.ladder = vec![Duration::from_millis(1)].into();
        assert_eq!(
            parts(None, "interline", EXPIRES_AFTER, &before),
            parts(None, "interline", EXPIRES_AFTER, &after)
        );
    }

    #[test]
    fn delay_queues_are_named_by_their_rung_and_lead_back_to_their_own_queue() {
        let names = names(None, &subscription("orders.placed"));
        let rungs = [
            (1_000, "1s"),
            (30_000, "30s"),
            (120_000, "2m"),
            (3_600_000, "1h"),
            (1_500, "1500ms"),
        ];
        for (millis, rung) in rungs {
            let name = delay_queue_name(&names.queue, Duration::from_millis(millis));
            assert_eq!(name, format!("billing.orders.placed.retry.{rung}"));
        }
        let part = delay_queue(&names, Duration::from_secs(5), EXPIRES_AFTER);
        assert_eq!(
            arguments(&part),
            [
                "x-message-ttl=5000",
                "x-dead-letter-exchange=\"\"",
                "x-dead-letter-routing-key=\"billing.orders.placed\"",
                "x-queue-type=\"quorum\"",
                "x-dead-letter-strategy=\"at-least-once\"",
                "x-overflow=\"reject-publish\"",
            ]
        );
    }

    #[test]
    fn what_an_instance_has_for_itself_ends_without_it_but_for_shared_dead_letters() {
        let group = Group::EachInstance {
            service: "billing".into(),
            instance: "i-1".into(),
            subscriber: "audit".into(),
        };
        let subscription = Subscription::new(TopicPattern::new("a.b"), group);
        let names = names(None, &subscription);
        assert_eq!(names.queue, "billing.audit.a.b.i-1");
        assert_eq!(names.dead_letters, "billing.audit.a.b.dlq");
        let parts = parts(None, "interline", EXPIRES_AFTER, &subscription);
        let of_instance = |part: &Part| {
            matches!(
                part,
                Part::Queue {
                    of_instance: true,
                    ..
                }
            )
        };
        assert!(!of_instance(&parts[1]) && of_instance(&parts[2]));
        assert!(arguments(&parts[2]).contains(&"x-expires=600000".to_owned()));
        assert!(arguments(&parts[2]).contains(&"x-queue-type=\"quorum\"".to_owned()));
        let delay = delay_queue(&names, Duration::from_secs(30), EXPIRES_AFTER);
        assert!(of_instance(&delay));
        // Longer than what waits in it.
        assert!(arguments(&delay).contains(&"x-expires=630000".to_owned()));
        // A declaration makes its time begin anew, which it does not for a quorum queue.
        assert!(
            !arguments(&delay)
                .iter()
                .any(|argument| argument.contains("quorum"))
        );
    }

    #[test]
    fn options_shape_existing_queues() {
        let mut subscription = subscription("orders.placed");
        subscription.dead_letter = false;
        subscription.ordered_by = Some(OrderedBy::Key);
        subscription.rabbitmq.queue = Some("legacy".into());
        subscription.rabbitmq.queue_kind = Some(QueueKind::Classic);
        subscription.rabbitmq.exchange = Some(String::new());
        subscription.rabbitmq.max_priority = Some(9);
        subscription.rabbitmq.arguments = vec![("x-max-length".into(), Argument::Int(5))];
        let parts = parts(Some("eu."), "interline", EXPIRES_AFTER, &subscription);
        assert_eq!(parts.len(), 1);
        assert!(matches!(&parts[0], Part::Queue { name, .. } if name == "legacy"));
        assert_eq!(
            arguments(&parts[0]),
            [
                "x-single-active-consumer=true",
                "x-max-priority=9",
                "x-max-length=5"
            ]
        );
    }

    #[test]
    fn a_readable_topology_can_be_applied() {
        let mut one = subscription("orders.placed");
        one.rabbitmq.binding_arguments = vec![
            ("x-match".into(), Argument::Text("all")),
            ("count".into(), Argument::Text("5")),
        ];
        let two = subscription("orders.{id}.paid");
        let topology = readable(None, "interline", EXPIRES_AFTER, [&one, &two].into_iter());
        let read: Vec<_> = topology
            .parts
            .iter()
            .map(|part| read(part).unwrap())
            .collect();
        let mut expected = parts(None, "interline", EXPIRES_AFTER, &one);
        expected.extend(
            parts(None, "interline", EXPIRES_AFTER, &two)
                .into_iter()
                .skip(1),
        );
        assert_eq!(read, expected);
    }

    #[test]
    fn names_that_amqp_cannot_carry_are_found() {
        let mut long = subscription("orders.placed");
        assert_eq!(too_long(&names(None, &long)), None);
        long.rabbitmq.queue = Some("q".repeat(250));
        assert!(too_long(&names(None, &long)).is_some());
    }
}
