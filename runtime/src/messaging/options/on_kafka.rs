//! What only Kafka understands of a subscriber.

/// Where Kafka keeps a message until its next attempt, for waits of a second and more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum KafkaRetry {
    /// In the process, which needs no topics. What waits is handed out again from the start when the
    /// partition moves, and no message behind it is committed meanwhile. Only dead letters that are sent
    /// back need a topic, `{topic}.{group}.retry.1s`, which is made when the first one is.
    InLane,
    /// In topics of the subscription's own, one for each delay.
    #[default]
    Topics,
}

/// What only Kafka understands of a subscriber: `#[subscriber(kafka(..))]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct KafkaOptions {
    /// The consumer group, in place of the group's name with the prefix.
    pub group_id: Option<&'static str>,
    /// A regular expression over the topics of the cluster, in place of the topic.
    pub pattern: Option<&'static str>,
    /// Partitions of the topic, if it is made; at least 1.
    pub partitions: Option<u16>,
    /// Replicas of its topics, if they are made; at least 1.
    pub replication: Option<u16>,
    /// Where a message waits for its next attempt.
    pub retry: Option<KafkaRetry>,
}

impl KafkaOptions {
    /// Nothing set.
    pub const UNSET: Self = Self {
        group_id: None,
        pattern: None,
        partitions: None,
        replication: None,
        retry: None,
    };

    /// With this consumer group.
    #[must_use]
    pub const fn group_id(mut self, name: &'static str) -> Self {
        self.group_id = Some(name);
        self
    }

    /// With every topic that this regular expression matches.
    #[must_use]
    pub const fn pattern(mut self, pattern: &'static str) -> Self {
        self.pattern = Some(pattern);
        self
    }

    /// With this many partitions of the topic, if it is made; at least 1.
    #[must_use]
    pub const fn partitions(mut self, count: u16) -> Self {
        self.partitions = Some(count);
        self
    }

    /// With this many replicas of its topics, if they are made; at least 1.
    #[must_use]
    pub const fn replication(mut self, count: u16) -> Self {
        self.replication = Some(count);
        self
    }

    /// With waits for the next attempt there.
    #[must_use]
    pub const fn retry(mut self, place: KafkaRetry) -> Self {
        self.retry = Some(place);
        self
    }
}
