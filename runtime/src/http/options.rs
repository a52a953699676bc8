//! How a call is made: what traits, methods, the configuration and single calls say about it.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;

use crate::resilience::{Backoff, Jitter, UsualTime, hash_key};

/// How a call is repeated; what is not said comes from elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetrySettings {
    /// All attempts, the first one included; at least 1.
    pub attempts: Option<u32>,
    /// The longest wait before the first repeat.
    pub first: Option<Duration>,
    /// The longest wait of all.
    pub max: Option<Duration>,
    /// How a wait is drawn.
    pub jitter: Option<Jitter>,
    /// When a call that may be repeated has not been answered after this time, it is sent a second
    /// time, to another endpoint where there is one, and the first answer counts. It is the second of
    /// the `attempts`; a share of the successful calls (`hedge.share` in the configuration, 5 % unless
    /// set) limits how many there are.
    pub hedge: Option<Duration>,
    /// The second request is sent when the first has taken longer than this share in a hundred of those
    /// of the method usually do, 50 to 99, as it is measured; `hedge` is then the least, and what counts
    /// while too little is known.
    pub hedge_percentile: Option<u8>,
}

/// How a call is made; what is not said comes from elsewhere.
///
/// What the configuration says of a method stands above the method's attributes, then come the
/// configuration of the service, the trait's attribute, and the defaults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CallSettings {
    /// How long the call may take with all its attempts and waits.
    pub timeout: Option<Duration>,
    /// How long one attempt may take.
    pub attempt_timeout: Option<Duration>,
    /// How it is repeated.
    pub retry: RetrySettings,
}

impl CallSettings {
    /// Nothing is said.
    pub const UNSET: Self = Self {
        timeout: None,
        attempt_timeout: None,
        retry: RetrySettings {
            attempts: None,
            first: None,
            max: None,
            jitter: None,
            hedge: None,
            hedge_percentile: None,
        },
    };

    /// With a limit on the whole call.
    #[must_use]
    pub const fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
        self
    }

    /// With a limit on each attempt.
    #[must_use]
    pub const fn attempt_timeout(mut self, limit: Duration) -> Self {
        self.attempt_timeout = Some(limit);
        self
    }

    /// With so many attempts, the first one included.
    #[must_use]
    pub const fn attempts(mut self, attempts: u32) -> Self {
        self.retry.attempts = Some(attempts);
        self
    }

    /// With this longest wait before the first repeat.
    #[must_use]
    pub const fn first(mut self, wait: Duration) -> Self {
        self.retry.first = Some(wait);
        self
    }

    /// With this longest wait of all.
    #[must_use]
    pub const fn max(mut self, wait: Duration) -> Self {
        self.retry.max = Some(wait);
        self
    }

    /// With waits that are drawn like this.
    #[must_use]
    pub const fn jitter(mut self, jitter: Jitter) -> Self {
        self.retry.jitter = Some(jitter);
        self
    }

    /// With a second request after this time without an answer.
    #[must_use]
    pub const fn hedge(mut self, after: Duration) -> Self {
        self.retry.hedge = Some(after);
        self
    }

    /// With a second request when the first takes longer than so many in a hundred usually do.
    #[must_use]
    pub const fn hedge_percentile(mut self, percentile: u8) -> Self {
        self.retry.hedge_percentile = Some(percentile);
        self
    }

    /// These, above those of `below`.
    fn over(self, below: Self) -> Self {
        Self {
            timeout: self.timeout.or(below.timeout),
            attempt_timeout: self.attempt_timeout.or(below.attempt_timeout),
            retry: RetrySettings {
                attempts: self.retry.attempts.or(below.retry.attempts),
                first: self.retry.first.or(below.retry.first),
                max: self.retry.max.or(below.retry.max),
                jitter: self.retry.jitter.or(below.retry.jitter),
                hedge: self.retry.hedge.or(below.retry.hedge),
                hedge_percentile: self.retry.hedge_percentile.or(below.retry.hedge_percentile),
            },
        }
    }
}

/// What was decided for the calls of one method.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Decided {
    pub(super) timeout: Duration,
    pub(super) attempt_timeout: Option<Duration>,
    pub(super) attempts: u32,
    pub(super) backoff: Backoff,
    pub(super) hedge: Option<Duration>,
    pub(super) hedge_percentile: Option<u8>,
}

impl Decided {
    /// From all that is said, the strongest first.
    pub(super) fn of(layers: &[CallSettings]) -> Self {
        let said = layers
            .iter()
            .fold(CallSettings::UNSET, |above, layer| above.over(*layer));
        let first = said.retry.first.unwrap_or(Duration::from_millis(50));
        let max = said.retry.max.unwrap_or(first.max(Duration::from_secs(2)));
        Self {
            timeout: said.timeout.unwrap_or(Duration::from_secs(10)),
            attempt_timeout: said.attempt_timeout,
            attempts: said.retry.attempts.unwrap_or(3).max(1),
            backoff: Backoff::new(first.min(max), max)
                .with_jitter(said.retry.jitter.unwrap_or_default()),
            hedge: said.retry.hedge,
            hedge_percentile: said.retry.hedge_percentile,
        }
    }

    /// What follows how long attempts take, where second requests go by that.
    pub(super) fn usual_time(&self) -> Option<Arc<UsualTime>> {
        let percentile = self.hedge_percentile?;
        Some(Arc::new(UsualTime::new(f64::from(percentile) / 100.0)))
    }
}

/// What is said of single calls: `orders.with(CallOptions::new().no_retry()).order(id)`.
#[derive(Clone, Debug, Default)]
pub struct CallOptions {
    pub(super) deadline: Option<Instant>,
    pub(super) timeout: Option<Duration>,
    pub(super) no_retry: bool,
    pub(super) hash: Option<u64>,
    pub(super) zone: Option<Arc<str>>,
    pub(super) headers: HeaderMap,
}

impl CallOptions {
    /// Nothing special.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The call ends at `deadline`, if not before.
    #[must_use]
    pub fn deadline(mut self, deadline: Instant) -> Self {
        self.deadline = Some(self.deadline.map_or(deadline, |known| known.min(deadline)));
        self
    }

    /// The call may take this long, if not less.
    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(self.timeout.map_or(limit, |known| known.min(limit)));
        self
    }

    /// One attempt and no more.
    #[must_use]
    pub fn no_retry(mut self) -> Self {
        self.no_retry = true;
        self
    }

    /// Calls with the same key go to the same endpoint, where the service is configured with
    /// `balance = "ring_hash"`; elsewhere it says nothing. The hash is the same in every process.
    #[must_use]
    pub fn hash_key(mut self, key: impl AsRef<[u8]>) -> Self {
        self.hash = Some(hash_key(key));
        self
    }

    /// The caller is in this zone, whatever `service.zone` says: with `balance = "zone_aware"` endpoints
    /// of the same zone are preferred.
    #[must_use]
    pub fn zone(mut self, zone: &str) -> Self {
        self.zone = Some(zone.into());
        self
    }

    /// Adds a header; one of the same name that the call would have is replaced.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    pub(super) fn over(mut self, below: &Self) -> Self {
        if let Some(deadline) = below.deadline {
            self = self.deadline(deadline);
        }
        if let Some(limit) = below.timeout {
            self = self.timeout(limit);
        }
        self.no_retry |= below.no_retry;
        self.hash = self.hash.or(below.hash);
        if self.zone.is_none() {
            self.zone.clone_from(&below.zone);
        }
        for (name, value) in &below.headers {
            if !self.headers.contains_key(name) {
                self.headers.insert(name, value.clone());
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_says_something_decides() {
        let s = Duration::from_secs;
        let decided = Decided::of(&[
            CallSettings::UNSET.attempts(1),
            CallSettings::UNSET.timeout(s(2)),
            CallSettings::UNSET.timeout(s(3)).attempts(9).max(s(1)),
            CallSettings::UNSET.attempt_timeout(s(1)),
        ]);
        assert_eq!((decided.attempts, decided.timeout), (1, s(2)));
        assert_eq!(decided.attempt_timeout, Some(s(1)));
        assert_eq!(decided.backoff.max, s(1));
        assert_eq!(decided.backoff.jitter, Jitter::Full);
        let equal = CallSettings::UNSET.jitter(Jitter::Equal);
        assert_eq!(Decided::of(&[equal]).backoff.jitter, Jitter::Equal);
        let late = Decided::of(&[CallSettings::UNSET.first(s(5))]).backoff;
        assert_eq!((late.first, late.max), (s(5), s(5)));
        let unsaid = Decided::of(&[]);
        assert_eq!((unsaid.attempts, unsaid.timeout), (3, s(10)));
        let hedged = CallSettings::UNSET.hedge(s(1));
        let layers = [CallSettings::UNSET, hedged, CallSettings::UNSET.hedge(s(2))];
        assert_eq!(Decided::of(&layers).hedge, Some(s(1)));
        let layers = [hedged, CallSettings::UNSET.hedge_percentile(95)];
        let decided = Decided::of(&layers);
        assert_eq!(
            (decided.hedge, decided.hedge_percentile),
            (Some(s(1)), Some(95))
        );
    }

    #[test]
    fn limits_of_a_call_only_get_tighter() {
        let s = Duration::from_secs;
        let below = CallOptions::new().timeout(s(1)).no_retry();
        let options = CallOptions::new().timeout(s(5)).over(&below);
        assert_eq!(options.timeout, Some(s(1)));
        assert!(options.no_retry);
    }
}
