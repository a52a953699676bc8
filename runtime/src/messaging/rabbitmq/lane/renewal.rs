//! How often the channel of a lane is followed by another because the server refused a message.
//!
//! The server refuses what goes to a full queue in the same words as what goes to a queue whose leader it
//! does not find. In the first case another channel is of no use, so it must not cost much.

use std::time::Duration;

use tokio::time::Instant;

/// The wait after the first renewal; after each further one it is twice as long. Electing a leader takes
/// some tenths of a second.
const FIRST: Duration = Duration::from_millis(250);
const MAX: Duration = Duration::from_secs(30);

/// The renewals of one lane.
#[derive(Debug, Default)]
pub(in crate::messaging::rabbitmq) struct Renewal {
    last: Option<Instant>,
    /// How long the last one has to have been ago.
    wait: Duration,
}

impl Renewal {
    /// Whether a channel on which a message was refused is to be followed by another now; then this
    /// counts as done.
    pub(in crate::messaging::rabbitmq) fn is_due(&mut self, now: Instant) -> bool {
        let since = self.last.map(|last| now.duration_since(last));
        if since.is_some_and(|since| since < self.wait) {
            return false;
        }
        self.wait = match since {
            // Long past: what is refused now has another cause.
            None => FIRST,
            Some(since) if since > 2 * MAX => FIRST,
            Some(_) => (2 * self.wait).min(MAX),
        };
        self.last = Some(now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn soon_at_first_then_seldom_and_soon_again_after_a_quiet_time() {
        let begin = Instant::now();
        let mut renewal = Renewal::default();
        // Refused a hundred times a second for ten minutes.
        let refused = (0..60_000).map(|at| begin + Duration::from_millis(10 * at));
        let renewed: Vec<Instant> = refused.filter(|now| renewal.is_due(*now)).collect();
        assert_eq!(renewed[0], begin);
        assert_eq!(renewed[1], begin + FIRST);
        assert_eq!(renewed[2], begin + 3 * FIRST);
        assert!(renewed.len() < 30, "{}", renewed.len());
        let last = renewed[renewed.len() - 1];
        assert_eq!(last, renewed[renewed.len() - 2] + MAX);
        let now = last + 3 * MAX;
        assert!(renewal.is_due(now));
        assert!(!renewal.is_due(now + FIRST / 2));
        assert!(renewal.is_due(now + FIRST));
    }
}
