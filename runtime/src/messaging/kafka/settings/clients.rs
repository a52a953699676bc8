//! What the library's clients are made of.

use std::time::Duration;

use rdkafka::ClientConfig;

use crate::messaging::BrokerErrorKind;
use crate::messaging::kafka::properties;

use super::address::parse;
use super::{NEEDS_FEATURE, SECONDS_10, Settings, Wrong};

/// The engine limits how large a message may be; the server has the last word.
const MESSAGE_BYTES_MAX: &str = "1000000000";
const RECEIVE_BYTES_MAX: &str = "1100000000";

impl Settings {
    /// What every client begins with, its secrets read anew.
    pub(in crate::messaging::kafka) fn client(
        &self,
        client_id: &str,
    ) -> Result<ClientConfig, Wrong> {
        let unreadable =
            |error: &dyn std::fmt::Display| (BrokerErrorKind::Configuration, error.to_string());
        let url = self.url.read().map_err(|error| unreadable(&error))?;
        let address = parse(url.expose())?;
        let username = self.username.clone().or(address.username);
        let password = match &self.password {
            Some(password) => Some(
                password
                    .read()
                    .map_err(|error| unreadable(&error))?
                    .expose()
                    .to_owned(),
            ),
            None => address.password,
        };
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &address.servers)
            .set("client.id", client_id)
            .set("reconnect.backoff.ms", "100")
            .set("reconnect.backoff.max.ms", "1500")
            .set("socket.keepalive.enable", "true")
            .set("socket.nagle.disable", "true")
            .set(
                "socket.connection.setup.timeout.ms",
                self.connect_timeout.as_millis().to_string(),
            )
            .set("message.max.bytes", MESSAGE_BYTES_MAX)
            .set("receive.message.max.bytes", RECEIVE_BYTES_MAX);
        if username.is_some() && cfg!(not(feature = "kafka-tls")) {
            return Err((BrokerErrorKind::Configuration, NEEDS_FEATURE.to_owned()));
        }
        let protocol = match (address.tls, username.is_some()) {
            (false, false) => "plaintext",
            (false, true) => "sasl_plaintext",
            (true, false) => "ssl",
            (true, true) => "sasl_ssl",
        };
        config.set("security.protocol", protocol);
        if let Some(username) = username {
            config
                .set("sasl.mechanism", self.sasl.to_ascii_uppercase())
                .set("sasl.username", username)
                .set("sasl.password", password.unwrap_or_default());
        }
        if address.tls {
            let files = [
                ("ssl.ca.location", &self.tls.ca_file),
                ("ssl.certificate.location", &self.tls.certificate_file),
                ("ssl.key.location", &self.tls.key_file),
            ];
            for (key, file) in files {
                if let Some(file) = file {
                    self.tls.readable(file)?;
                    config.set(key, file.display().to_string());
                }
            }
        }
        for (key, value) in &self.properties {
            config.set(key, value);
        }
        Ok(config)
    }

    /// What a consumer that only looks is made of.
    pub(in crate::messaging::kafka) fn reader(
        &self,
        client_id: &str,
        group: &str,
    ) -> Result<ClientConfig, Wrong> {
        let mut config = self.client(client_id)?;
        properties::keep_for_consumers(&mut config);
        config
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("allow.auto.create.topics", "false");
        Ok(config)
    }

    /// What a member of a group is made of.
    pub(in crate::messaging::kafka) fn member(
        &self,
        client_id: &str,
        group: &str,
    ) -> Result<ClientConfig, Wrong> {
        let mut config = self.reader(client_id, group)?;
        let defaults = [
            // A fast reader would wait for a second each time its queue was full.
            ("fetch.queue.backoff.ms", "5"),
            ("fetch.wait.max.ms", "100"),
            ("queued.max.messages.kbytes", "16384"),
            ("topic.metadata.refresh.interval.ms", "10000"),
            ("isolation.level", "read_committed"),
            ("statistics.interval.ms", "5000"),
        ];
        for (key, value) in defaults {
            if !self.properties.iter().any(|(own, _)| own == key) {
                config.set(key, value);
            }
        }
        if !self
            .properties
            .iter()
            .any(|(own, _)| own == "socket.timeout.ms")
        {
            // A request that a dead connection swallowed holds back what waits for its answer; a minute,
            // the library's default, would be long for a group whose session is over by then.
            let limit = self
                .session_timeout
                .clamp(Duration::from_secs(3), SECONDS_10);
            config.set("socket.timeout.ms", limit.as_millis().to_string());
        }
        // What a subscription has no position in did not exist when it was applied: it reads all of it.
        config.set("auto.offset.reset", "earliest").set(
            "max.poll.interval.ms",
            self.max_poll_interval.as_millis().to_string(),
        );
        if self.new_protocol {
            config.set("group.protocol", "consumer");
        } else {
            let session = self.session_timeout;
            config.set("session.timeout.ms", session.as_millis().to_string());
            let given = |key: &str| self.properties.iter().any(|(own, _)| own == key);
            if !given("heartbeat.interval.ms") {
                let beat = (session / 5).min(Duration::from_secs(3));
                config.set("heartbeat.interval.ms", beat.as_millis().to_string());
            }
            if !given("partition.assignment.strategy") {
                config.set("partition.assignment.strategy", "cooperative-sticky");
            }
        }
        // With the new protocol it is the server that knows the session, and the key is refused.
        if !self.new_protocol && self.max_poll_interval < self.session_timeout {
            // The library wants a session that is not longer than this.
            config.set(
                "session.timeout.ms",
                self.max_poll_interval.as_millis().to_string(),
            );
        }
        if let Some(id) = &self.instance_id {
            config.set("group.instance.id", id);
        }
        Ok(config)
    }

    /// What a producer is made of.
    pub(in crate::messaging::kafka) fn producer(
        &self,
        client_id: &str,
    ) -> Result<ClientConfig, Wrong> {
        let mut config = self.client(client_id)?;
        properties::keep_for_producers(&mut config);
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("partitioner", "murmur2_random")
            .set("compression.codec", self.compression);
        let defaults = [("linger.ms", "1"), ("message.timeout.ms", "30000")];
        for (key, value) in defaults {
            let aliases = [key, "queue.buffering.max.ms", "delivery.timeout.ms"];
            let given = |own: &str| {
                own == key
                    || (key == "linger.ms" && own == aliases[1])
                    || (key == "message.timeout.ms" && own == aliases[2])
            };
            if !self.properties.iter().any(|(own, _)| given(own)) {
                config.set(key, value);
            }
        }
        Ok(config)
    }
}
