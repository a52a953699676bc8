//! The settings of an embedded broker.

use crate::config::{Faults, Section};

/// How much a store keeps and how it behaves; the defaults suit a service that runs on it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryOptions {
    /// Most messages that one queue holds, its retries and dead letters included; what comes on top
    /// is refused. Default 1 000 000.
    pub max_messages: usize,
    /// Most published messages that are kept for subscriptions that start at the earliest. Default
    /// 10 000.
    pub log_messages: usize,
    /// Most bytes of their bodies and headers, about. Default 64 MiB.
    pub log_bytes: usize,
    /// How often a message can be lost with the connection it was handed out on, before it is given
    /// up as `delivery_limit`. Default 20.
    pub delivery_limit: u32,
    /// How many events are kept for tests; 0, the default, keeps none.
    pub events: usize,
    /// Whether a subscription with `topology = verify` or `off` has to find its queue. By default it
    /// is made in every mode, since nobody else could have made it.
    pub strict_topology: bool,
    /// The seed of faults that are random.
    pub seed: u64,
}

impl Default for MemoryOptions {
    fn default() -> Self {
        Self {
            max_messages: 1_000_000,
            log_messages: 10_000,
            log_bytes: 64 << 20,
            delivery_limit: 20,
            events: 0,
            strict_topology: false,
            seed: 0,
        }
    }
}

impl MemoryOptions {
    /// The defaults, and the last 10 000 events are kept.
    #[must_use]
    pub fn for_tests(seed: u64) -> Self {
        Self {
            events: 10_000,
            seed,
            ..Self::default()
        }
    }

    /// Reads `max_messages`, `log_messages`, `log_bytes` and `delivery_limit` of a broker's section.
    #[must_use]
    pub fn read(section: &Section<'_>, faults: &mut Faults) -> Self {
        let default = Self::default();
        let log_bytes = section
            .size("log_bytes", .., faults)
            .map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        Self {
            max_messages: section
                .integer("max_messages", 1.., faults)
                .unwrap_or(default.max_messages),
            log_messages: section
                .integer("log_messages", .., faults)
                .unwrap_or(default.log_messages),
            log_bytes: log_bytes.unwrap_or(default.log_bytes),
            delivery_limit: section
                .integer("delivery_limit", 1.., faults)
                .unwrap_or(default.delivery_limit),
            ..default
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn every_setting_is_read_and_checked() {
        let config = Config::new()
            .with("brokers.main.max_messages", 5)
            .with("brokers.main.log_messages", 0)
            .with("brokers.main.log_bytes", "1KiB")
            .with("brokers.main.delivery_limit", 3);
        let mut faults = Faults::new();
        let read = MemoryOptions::read(&config.section("brokers.main"), &mut faults);
        config.finish(&mut faults);
        assert!(faults.is_empty());
        let expected = MemoryOptions {
            max_messages: 5,
            log_messages: 0,
            log_bytes: 1_024,
            delivery_limit: 3,
            ..MemoryOptions::default()
        };
        assert_eq!(read, expected);

        let config = Config::new().with("brokers.main.max_messages", 0);
        let read = MemoryOptions::read(&config.section("brokers.main"), &mut faults);
        assert_eq!(read, MemoryOptions::default());
        assert!(!faults.is_empty());
    }
}
