//! What only Redis understands of a subscriber.

/// What only Redis understands of a subscriber: `#[subscriber(redis(..))]`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct RedisOptions {
    /// The stream (or, with Pub/Sub, the channel), in place of the one called like the topic.
    pub stream: Option<&'static str>,
    /// The consumer group on it, in place of the subscriber's group.
    pub group: Option<&'static str>,
}

impl RedisOptions {
    /// Nothing set.
    pub const UNSET: Self = Self {
        stream: None,
        group: None,
    };

    /// With this stream.
    #[must_use]
    pub const fn stream(mut self, name: &'static str) -> Self {
        self.stream = Some(name);
        self
    }

    /// With this consumer group.
    #[must_use]
    pub const fn group(mut self, name: &'static str) -> Self {
        self.group = Some(name);
        self
    }
}
