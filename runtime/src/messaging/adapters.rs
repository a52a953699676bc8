//! The table of broker adapters: one row per kind.

use std::sync::Arc;

use crate::config::{Faults, Section};

use super::port::{BrokerContext, MessageBroker};

/// Makes a broker from its section of the configuration, without connecting. `None` after pushing
/// what is wrong.
pub(crate) type Connect =
    fn(&BrokerContext, &Section<'_>, &mut Faults) -> Option<Arc<dyn MessageBroker>>;

/// One kind of broker.
#[derive(Debug)]
pub(crate) struct Adapter {
    /// The kind, as the configuration names it.
    pub(crate) kind: &'static str,
    /// The schemes of its URLs.
    pub(crate) schemes: &'static [&'static str],
    /// The feature that switches it on.
    pub(crate) feature: &'static str,
    /// Makes one; `None` while the feature is off.
    pub(crate) connect: Option<Connect>,
    /// How it does what others do too.
    pub(crate) ways: Ways,
}

/// How a kind of broker does what other kinds do too, in a few words each, for those who move.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ways {
    /// How it keeps order by key across instances.
    pub(crate) order: &'static str,
    /// Where retries wait that take longer than a second.
    pub(crate) retries: &'static str,
    /// Where dead letters are kept.
    pub(crate) dead_letters: &'static str,
}

/// Every kind of broker, switched on or not, in alphabetical order.
pub(crate) const ADAPTERS: &[Adapter] = &[
    Adapter {
        kind: "kafka",
        schemes: &["kafka", "kafkas"],
        feature: "kafka",
        connect: KAFKA,
        ways: Ways {
            order: "by partition: the keys are shared out among the instances",
            retries: "in topics of the group, one for each wait of the ladder",
            dead_letters: "in a topic of the group",
        },
    },
    Adapter {
        kind: "memory",
        schemes: &["memory"],
        feature: "memory",
        connect: MEMORY,
        ways: Ways {
            order: "in this process",
            retries: "in this process",
            dead_letters: "in this process",
        },
    },
    Adapter {
        kind: "rabbitmq",
        schemes: &["amqp", "amqps"],
        feature: "rabbitmq",
        connect: RABBITMQ,
        ways: Ways {
            order: "by one instance at a time",
            retries: "in delay queues of the group, one for each wait of the ladder",
            dead_letters: "in a queue of the group",
        },
    },
    Adapter {
        kind: "redis",
        schemes: &["redis", "rediss"],
        feature: "redis",
        connect: REDIS,
        ways: Ways {
            order: "by one instance at a time",
            retries: "in a sorted set of the group",
            dead_letters: "in a stream of the group",
        },
    },
    Adapter {
        kind: "redis-pubsub",
        // The url of a server says nothing about how it is used: the kind has to be named.
        schemes: &[],
        feature: "redis",
        connect: REDIS_PUBSUB,
        ways: Ways {
            order: "not kept",
            retries: "none: an attempt is not repeated",
            dead_letters: "dropped",
        },
    },
];

#[cfg(feature = "kafka")]
const KAFKA: Option<Connect> = Some(super::kafka::connect);
#[cfg(not(feature = "kafka"))]
const KAFKA: Option<Connect> = None;
#[cfg(feature = "memory")]
const MEMORY: Option<Connect> = Some(super::memory::connect);
#[cfg(not(feature = "memory"))]
const MEMORY: Option<Connect> = None;
#[cfg(feature = "rabbitmq")]
const RABBITMQ: Option<Connect> = Some(super::rabbitmq::connect);
#[cfg(not(feature = "rabbitmq"))]
const RABBITMQ: Option<Connect> = None;
#[cfg(feature = "redis")]
const REDIS: Option<Connect> = Some(super::redis::connect);
#[cfg(not(feature = "redis"))]
const REDIS: Option<Connect> = None;
#[cfg(feature = "redis")]
const REDIS_PUBSUB: Option<Connect> = Some(super::redis::connect_channels);
#[cfg(not(feature = "redis"))]
const REDIS_PUBSUB: Option<Connect> = None;

#[cfg(test)]
mod tests {
    use super::*;

    /// The row of a kind in `docs/guarantees.md`.
    fn row(kind: &str, able: crate::messaging::Capabilities) -> String {
        let yes = |able: bool| if able { "yes" } else { "no" };
        let later = able.scheduling;
        let later = later.map_or("no".to_owned(), |scheduling| scheduling.to_string());
        format!(
            "| {kind} | {} | {} | {} | {} | {} | {} | {} | {later} |",
            yes(able.patterns),
            yes(able.ordered_across_instances),
            yes(able.priorities),
            yes(able.message_ttl),
            yes(able.durable),
            yes(able.reports_unroutable),
            yes(able.replies),
        )
    }

    #[test]
    fn the_table_of_guarantees_says_what_the_adapters_say() {
        let table = include_str!("../../../docs/guarantees.md");
        for adapter in ADAPTERS {
            let Some(connect) = adapter.connect else {
                continue;
            };
            // A kind without schemes of its own is named by `kind` beside another's URL.
            let scheme = adapter.schemes.first().copied().unwrap_or("redis");
            let config = crate::config::Config::new()
                .with("brokers.main.url", format!("{scheme}://localhost"));
            let context = BrokerContext::new("main", "billing", "billing-1");
            let mut faults = Faults::new();
            let broker = connect(&context, &config.section("brokers.main"), &mut faults);
            let broker = broker.expect("a url is enough");
            let row = row(adapter.kind, broker.capabilities());
            assert!(table.contains(&row), "docs/guarantees.md lacks\n{row}");
        }
    }

    #[test]
    fn kinds_are_sorted_and_no_scheme_occurs_twice() {
        assert!(ADAPTERS.is_sorted_by_key(|adapter| adapter.kind));
        let mut schemes: Vec<_> = ADAPTERS
            .iter()
            .flat_map(|adapter| adapter.schemes)
            .collect();
        schemes.sort_unstable();
        let count = schemes.len();
        schemes.dedup();
        assert_eq!(schemes.len(), count);
    }
}
