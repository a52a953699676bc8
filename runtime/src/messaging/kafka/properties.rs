//! Properties of librdkafka that are passed through.

use rdkafka::ClientConfig;

use crate::config::{Faults, Section};

/// Properties that the adapter lives by, each with what to use in its place.
const RESERVED: &[(&str, &str)] = &[
    ("acks", "it is `all`: reported success means confirmed"),
    ("allow.auto.create.topics", "use `topology`"),
    ("auto.commit.interval.ms", "use `commit_interval`"),
    ("auto.offset.reset", "use the subscriber's `start`"),
    ("bootstrap.servers", "use `url`"),
    ("client.id", "it names service and instance"),
    ("compression.codec", "use `compression`"),
    ("compression.type", "use `compression`"),
    (
        "enable.auto.commit",
        "offsets are committed once messages are settled",
    ),
    (
        "enable.auto.offset.store",
        "offsets are committed once messages are settled",
    ),
    ("enable.idempotence", "it is on"),
    (
        "enable.partition.eof",
        "the end of a partition is nothing a handler sees",
    ),
    (
        "group.id",
        "use the subscriber's `kafka(group_id = \"..\")`",
    ),
    ("group.instance.id", "use `instance_id`"),
    ("group.protocol", "use `group_protocol`"),
    ("max.poll.interval.ms", "use `max_poll_interval`"),
    ("message.max.bytes", "use the broker's `max_message_size`"),
    ("metadata.broker.list", "use `url`"),
    (
        "partitioner",
        "it is Java's, so that both put a key into the same partition",
    ),
    (
        "receive.message.max.bytes",
        "it follows `message.max.bytes`",
    ),
    (
        "request.required.acks",
        "it is `all`: reported success means confirmed",
    ),
    ("sasl.mechanism", "use `sasl`"),
    ("sasl.mechanisms", "use `sasl`"),
    ("sasl.password", "use `password`"),
    ("sasl.username", "use `username`"),
    (
        "security.protocol",
        "use `kafka://` or `kafkas://` and `username`",
    ),
    ("session.timeout.ms", "use `session_timeout`"),
    ("ssl.ca.location", "use `tls.ca_file`"),
    ("ssl.certificate.location", "use `tls.certificate_file`"),
    ("ssl.key.location", "use `tls.key_file`"),
    ("transactional.id", "publishes are not transactional"),
];

/// How often the library says how far it is; without it nobody sees a partition that stands still.
const MEASURED_BY: &str = "statistics.interval.ms";

/// What the protocol of Kafka 4 leaves to the server.
const CLASSIC_ONLY: &[&str] = &[
    "group.protocol.type",
    "heartbeat.interval.ms",
    "partition.assignment.strategy",
];

/// Properties that only a producer has; a consumer would warn of each.
const PRODUCER_ONLY: &[&str] = &[
    "batch.num.messages",
    "batch.size",
    "compression.level",
    "delivery.timeout.ms",
    "dr_cb",
    "enable.gapless.guarantee",
    "linger.ms",
    "message.send.max.retries",
    "message.timeout.ms",
    "queue.buffering.backpressure.threshold",
    "queue.buffering.max.kbytes",
    "queue.buffering.max.messages",
    "queue.buffering.max.ms",
    "queuing.strategy",
    "request.timeout.ms",
    "retries",
    "retry.backoff.max.ms",
    "retry.backoff.ms",
    "sticky.partitioning.linger.ms",
    "transaction.timeout.ms",
];

/// Properties that only a consumer has.
const CONSUMER_ONLY: &[&str] = &[
    "check.crcs",
    "coordinator.query.interval.ms",
    "fetch.error.backoff.ms",
    "fetch.max.bytes",
    "fetch.message.max.bytes",
    "fetch.min.bytes",
    "fetch.queue.backoff.ms",
    "fetch.wait.max.ms",
    "group.protocol.type",
    "group.remote.assignor",
    "heartbeat.interval.ms",
    "isolation.level",
    "max.partition.fetch.bytes",
    "partition.assignment.strategy",
    "queued.max.messages.kbytes",
    "queued.min.messages",
];

/// Reads the section `librdkafka`; a dot in a property may also be written as `_`, as in a variable.
pub(super) fn read(
    section: &Section<'_>,
    new_protocol: bool,
    faults: &mut Faults,
) -> Vec<(String, String)> {
    let mut found = Vec::new();
    collect(section, "", new_protocol, &mut found, faults);
    section.accept_all(faults);
    found
}

fn collect(
    section: &Section<'_>,
    before: &str,
    new_protocol: bool,
    found: &mut Vec<(String, String)>,
    faults: &mut Faults,
) {
    for key in section.keys() {
        let property = format!("{before}{}", key.replace('_', "."));
        let inner = section.section(key, &mut Faults::new());
        if inner.is_present() {
            // Without quotes the dots of a property make tables.
            collect(&inner, &format!("{property}."), new_protocol, found, faults);
            continue;
        }
        let Some(value) = scalar(section, key) else {
            faults.push(section.fault(key, "must be a text, a number, `true` or `false`"));
            continue;
        };
        let reserved = RESERVED.iter().find(|(name, _)| *name == property);
        if let Some((_, instead)) = reserved {
            let message = format!("sets `{property}`, which is not yours to set");
            faults.push(section.fault(key, message).with_help(*instead));
            continue;
        }
        if new_protocol && CLASSIC_ONLY.contains(&property.as_str()) {
            let message = format!(
                "sets `{property}`, which `group_protocol = \"consumer\"` leaves to the server"
            );
            faults.push(
                section
                    .fault(key, message)
                    .with_help("leave one of them out"),
            );
            continue;
        }
        if property == MEASURED_BY && value == "0" {
            let message = format!("sets `{property}` to 0, which leaves nothing to measure by");
            let fault = section.fault(key, message);
            faults
                .push(fault.with_help("the lag and `stall_timeout` need it; 5000 is the default"));
            continue;
        }
        let mut tried = ClientConfig::new();
        tried.set(&property, &value);
        if let Err(error) = tried.create_native_config() {
            let (_, why) = super::errors::told(&error);
            faults.push(section.fault(key, why));
            continue;
        }
        found.push((property, value));
    }
}

fn scalar(section: &Section<'_>, key: &str) -> Option<String> {
    let quiet = &mut Faults::new();
    section
        .string(key, quiet)
        .or_else(|| section.bool(key, quiet).map(|value| value.to_string()))
        .or_else(|| {
            let number = section.integer::<i64>(key, .., quiet);
            number.map(|value| value.to_string())
        })
        .or_else(|| section.float(key, .., quiet).map(|value| value.to_string()))
}

/// Leaves out what only a producer understands.
pub(super) fn keep_for_consumers(config: &mut ClientConfig) {
    for property in PRODUCER_ONLY {
        config.remove(property);
    }
}

/// Leaves out what only a consumer understands.
pub(super) fn keep_for_producers(config: &mut ClientConfig) {
    for property in CONSUMER_ONLY {
        config.remove(property);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn found(config: &Config) -> (Vec<(String, String)>, Vec<String>) {
        let mut faults = Faults::new();
        let found = read(&config.section("l"), false, &mut faults);
        let faults = faults.iter().map(|fault| fault.message().to_owned());
        (found, faults.collect())
    }

    #[test]
    fn any_property_goes_through_but_reserved_and_unknown_ones() {
        let config = Config::new()
            .with("l.socket_timeout_ms", 1_000)
            .with("l.fetch.min.bytes", "5")
            .with("l.acks", "1")
            .with("l.statistics_interval_ms", 0)
            .with("l.no_such_thing", true);
        let (mut properties, faults) = found(&config);
        properties.sort();
        let expected = [("fetch.min.bytes", "5"), ("socket.timeout.ms", "1000")];
        assert_eq!(
            properties,
            expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
        assert_eq!(faults.len(), 3, "{faults:?}");
        assert!(faults[0].contains("`acks`"), "{faults:?}");
        assert!(faults[1].contains("no.such.thing"), "{faults:?}");
        assert!(faults[2].contains("statistics.interval.ms"), "{faults:?}");
    }

    #[test]
    fn lists_are_sorted() {
        assert!(RESERVED.is_sorted_by_key(|(name, _)| *name));
        assert!(PRODUCER_ONLY.is_sorted() && CONSUMER_ONLY.is_sorted());
    }
}
