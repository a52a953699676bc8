//! Topics that take no message for some reason that may pass: others do not wait for them.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::publish::CopyError;

/// How long a message is tried again and again before it is put aside.
pub(super) const STUCK_MAX: Duration = Duration::from_secs(30);
/// How often a topic is tried that has failed for so long.
const TRY_EVERY: Duration = Duration::from_secs(10);
/// How often it is told of a topic that something waits for it.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// A topic of which nothing was heard for so long is forgotten: what was put aside has come back since.
const FORGET: Duration = Duration::from_secs(300);

/// What is known of the topics that fail.
#[derive(Default)]
pub(super) struct Stuck {
    failing: HashMap<String, Failing>,
    told: HashMap<String, Instant>,
}

struct Failing {
    since: Instant,
    tried: Instant,
}

impl Failing {
    fn is_stuck(&self, now: Instant) -> bool {
        now.duration_since(self.since) >= STUCK_MAX
    }
}

impl Stuck {
    /// Whether a topic has failed for so long, and a moment ago, that a message is put aside untried. Who
    /// is told `false` tries, and for all others.
    pub(super) fn is_known(&mut self, topic: &str, now: Instant) -> bool {
        let Some(failing) = self.failing.get_mut(topic) else {
            return false;
        };
        if !failing.is_stuck(now) {
            return false;
        }
        let is_known = now.duration_since(failing.tried) < TRY_EVERY;
        if !is_known {
            failing.tried = now;
        }
        is_known
    }

    /// A message was not taken; whether none was for too long.
    pub(super) fn fails(&mut self, topic: &str, now: Instant) -> bool {
        self.failing
            .retain(|_, failing| now.duration_since(failing.tried) < FORGET);
        let fresh = Failing {
            since: now,
            tried: now,
        };
        let failing = self.failing.entry(topic.to_owned()).or_insert(fresh);
        failing.tried = now;
        failing.is_stuck(now)
    }

    /// A message was taken.
    pub(super) fn works(&mut self, topic: &str) {
        self.failing.remove(topic);
    }

    /// Whether it is time to tell of a topic that something waits for it.
    pub(super) fn is_news(&mut self, topic: &str, now: Instant) -> bool {
        self.told
            .retain(|_, told| now.duration_since(*told) < TELL_EVERY);
        let is_news = !self.told.contains_key(topic);
        if is_news {
            self.told.insert(topic.to_owned(), now);
        }
        is_news
    }
}

/// Since when a message cannot be published; only what is so all of the time counts.
#[derive(Default)]
pub(super) struct Since {
    missing: Option<Instant>,
    pub(super) failing: Option<Instant>,
}

impl Since {
    /// For how long its topic is missing. Any other error says that it may be there.
    pub(super) fn missing_for(&mut self, error: &CopyError) -> Duration {
        let is_missing = matches!(error, CopyError::Missing);
        self.missing = is_missing.then(|| self.missing.unwrap_or_else(Instant::now));
        let missing = self.missing.map(|since| since.elapsed());
        missing.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;
    use crate::messaging::BrokerErrorKind;

    #[tokio::test(start_paused = true)]
    async fn a_topic_is_missing_since_it_was_nothing_else() {
        let mut since = Since::default();
        let other = CopyError::Failed(BrokerErrorKind::Timeout, String::new());
        let second = Duration::from_secs(1);
        assert_eq!(since.missing_for(&other), Duration::ZERO);
        sleep(60 * second).await;
        assert_eq!(since.missing_for(&CopyError::Missing), Duration::ZERO);
        sleep(14 * second).await;
        assert_eq!(since.missing_for(&CopyError::Missing), 14 * second);
        assert_eq!(since.missing_for(&other), Duration::ZERO);
        assert_eq!(since.missing_for(&CopyError::Missing), Duration::ZERO);
    }

    #[test]
    fn a_topic_that_fails_for_long_is_tried_by_one_for_all() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let mut stuck = Stuck::default();
        assert!(!stuck.is_known("a", begun));
        assert!(!stuck.fails("a", begun));
        assert!(!stuck.is_known("a", at(29)));
        assert!(!stuck.fails("a", at(29)));
        assert!(stuck.fails("a", at(30)));
        // Nothing is known of others.
        assert!(!stuck.is_known("b", at(30)));
        assert!(!stuck.fails("b", at(30)));
        assert!(stuck.is_known("a", at(31)));
        assert!(!stuck.is_known("a", at(40)), "it is tried again");
        assert!(stuck.is_known("a", at(41)), "by one");
        stuck.works("a");
        assert!(!stuck.is_known("a", at(42)));
        assert!(!stuck.fails("a", at(43)), "the time begins anew");
        // One that nobody wanted for long is not known any more.
        assert!(!stuck.fails("b", at(330)));
        assert_eq!(stuck.failing.len(), 2);
        assert!(!stuck.fails("b", at(900)));
        assert_eq!(stuck.failing.len(), 1);
    }

    #[test]
    fn a_topic_is_told_of_once_a_minute() {
        let begun = Instant::now();
        let mut stuck = Stuck::default();
        assert!(stuck.is_news("a", begun) && stuck.is_news("b", begun));
        assert!(!stuck.is_news("a", begun + Duration::from_secs(59)));
        assert!(stuck.is_news("a", begun + Duration::from_secs(60)));
        assert_eq!(stuck.told.len(), 1, "the other one is over");
    }
}
