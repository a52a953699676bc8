//! The ladder: the few delays that a broker has, so that no topology depends on a handler's numbers.

use std::time::Duration;

use super::options::RetryPolicy;

/// Waits shorter than this stay in the process; longer ones go to the broker.
pub(crate) const HELD_WAIT_MAX: Duration = Duration::from_secs(1);
/// Attempts that are reckoned one by one.
const ATTEMPTS_RECKONED: u32 = 10_000;

/// The step that a wait is rounded up to; the last one for longer waits, whose rest is waited when the
/// message comes back.
pub(crate) fn rung(ladder: &[Duration], wait: Duration) -> Duration {
    let fitting = ladder.iter().copied().find(|rung| *rung >= wait);
    fitting
        .or_else(|| ladder.last().copied())
        .unwrap_or(HELD_WAIT_MAX)
}

/// How long a message really waits whose retry is due after `wait`.
pub(crate) fn rounded_up(ladder: &[Duration], wait: Duration) -> Duration {
    let longest = ladder.last().copied().unwrap_or(HELD_WAIT_MAX);
    if wait < HELD_WAIT_MAX || longest.is_zero() {
        return wait;
    }
    let rounds = (wait.as_nanos() - 1) / longest.as_nanos();
    let rounds = u32::try_from(rounds).unwrap_or(u32::MAX);
    let whole = longest.saturating_mul(rounds);
    whole.saturating_add(rung(ladder, wait.saturating_sub(whole)))
}

/// The waits of a policy as they really are. In a lane they are exact: `ladder` is `None` there.
pub(crate) fn waits<'a>(
    policy: &'a RetryPolicy,
    ladder: Option<&'a [Duration]>,
) -> impl Iterator<Item = Duration> + 'a {
    let attempts = 2..=policy.attempts.min(ATTEMPTS_RECKONED);
    attempts.map(move |attempt| {
        let wait = policy.wait_before(attempt);
        ladder.map_or(wait, |ladder| rounded_up(ladder, wait))
    })
}

/// How long a delivery is out at most before it is settled, with attempts that take `attempt` each: the
/// longest row of attempts between which it waits in the process. In a lane that is all of them.
pub(crate) fn held_at_most(policy: &RetryPolicy, attempt: Duration, in_lane: bool) -> Duration {
    let (mut row, mut longest) = (attempt, attempt);
    for wait in waits(policy, None) {
        row = match in_lane || wait < HELD_WAIT_MAX {
            true => row.saturating_add(wait).saturating_add(attempt),
            false => attempt,
        };
        longest = longest.max(row);
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;

    const LADDER: [Duration; 3] = [
        Duration::from_secs(1),
        Duration::from_secs(5),
        Duration::from_secs(30),
    ];

    #[test]
    fn waits_are_rounded_up_to_what_the_broker_has() {
        let cases = [
            (999, 999),
            (1_000, 1_000),
            (1_001, 5_000),
            (30_000, 30_000),
            // The rest is waited when it comes back.
            (30_001, 31_000),
            (66_000, 90_000),
        ];
        for (wait, expected) in cases {
            let rounded = rounded_up(&LADDER, Duration::from_millis(wait));
            assert_eq!(rounded, Duration::from_millis(expected), "{wait} ms");
        }
        let default: Vec<_> = waits(&RetryPolicy::DEFAULT, Some(&LADDER))
            .map(|wait| wait.as_millis())
            .collect();
        assert_eq!(default, [200, 400, 800, 5_000]);
    }

    #[test]
    fn a_delivery_is_held_for_as_many_attempts_as_follow_each_other_in_the_process() {
        let minute = Duration::from_secs(60);
        let held = |in_lane| held_at_most(&RetryPolicy::DEFAULT, minute, in_lane);
        // Four attempts, then the broker has it.
        assert_eq!(held(false), 4 * minute + Duration::from_millis(1_400));
        assert_eq!(held(true), 5 * minute + Duration::from_millis(3_000));
        assert_eq!(held_at_most(&RetryPolicy::NONE, minute, true), minute);
    }
}
