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
}

/// Every kind of broker, switched on or not, in alphabetical order.
pub(crate) const ADAPTERS: &[Adapter] = &[
    Adapter {
        kind: "kafka",
        schemes: &["kafka", "kafkas"],
        feature: "kafka",
        connect: KAFKA,
    },
    Adapter {
        kind: "memory",
        schemes: &["memory"],
        feature: "memory",
        connect: MEMORY,
    },
    Adapter {
        kind: "rabbitmq",
        schemes: &["amqp", "amqps"],
        feature: "rabbitmq",
        connect: RABBITMQ,
    },
    Adapter {
        kind: "redis",
        schemes: &["redis", "rediss"],
        feature: "redis",
        connect: REDIS,
    },
    Adapter {
        kind: "redis-pubsub",
        // The url of a server says nothing about how it is used: the kind has to be named.
        schemes: &[],
        feature: "redis",
        connect: REDIS_PUBSUB,
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
