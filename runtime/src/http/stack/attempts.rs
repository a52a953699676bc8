//! One attempt after another, until one works or there is no use in trying.

use std::time::Duration;

use http::StatusCode;
use tokio::time::{Instant, sleep_until};

use super::super::error::{CallErrorKind, CallFailure, Sent};
use super::super::limits::{Refused, Repeat};
use super::super::pool::{Tried, Wish};
use super::Stack;
use super::classify::Verdict;
use super::request::{Answer, Prepared};

/// Why a call is not repeated that could be.
const NO_TIME: &str = "there is no time for another attempt";

/// Why another is not.
const NO_REPEAT: &str = "too many recent calls were repeated for another attempt";

impl Stack {
    /// Tries from `now` on until it works, or there is no use in trying, and that is `now` then.
    pub(super) async fn attempts(
        &self,
        prepared: &Prepared,
        now: &mut Instant,
    ) -> Result<Answer, Box<CallFailure>> {
        let mut tried = Tried::default();
        let mut sent = Sent::No;
        self.repeats.deposit(*now);
        // A mesh repeats by itself, and both together would multiply.
        let attempts_max = match self.settings.mesh {
            true => 1,
            false => prepared.decided.attempts,
        };
        let mut attempt = 1;
        let mut before: Option<CallFailure> = None;
        let mut waited = None;
        let (mut turn, mut has_turn) = (None, false);
        let mut repeat: Option<Repeat<'_>> = None;
        loop {
            if let (Some(limiter), false) = (&self.limiter, has_turn) {
                let entered = limiter.enter(prepared.deadline).await;
                *now = Instant::now();
                match entered {
                    Ok(given) => turn = Some(given),
                    Err(refused) => return Err(no_turn(prepared, before, refused)),
                }
            }
            has_turn = true;
            if *now >= prepared.deadline {
                return Err(no_time(prepared, before));
            }
            let pool = self.pool.load_full();
            let wish = self.wish(prepared);
            let Some(lease) = pool.pick(&mut tried, wish, *now) else {
                let answered = self.first_answer(prepared.deadline).await;
                *now = Instant::now();
                if answered {
                    continue;
                }
                return Err(self.nowhere(prepared, before));
            };
            if let Some(turn) = turn.take() {
                turn.used();
            }
            if let Some(repeat) = repeat.take() {
                repeat.sent();
            }
            let second = match attempt == 1 && attempts_max > 1 {
                true => self.second_after(prepared, &pool, &tried, *now),
                false => None,
            };
            let result = match second {
                Some(after) => {
                    let hedging = self.hedged(prepared, lease, &mut tried, after, now);
                    let hedged = hedging.await;
                    attempt = hedged.attempts;
                    hedged.result
                }
                None => {
                    let begun = *now;
                    let result = self.attempt(prepared, lease, attempt, now).await;
                    prepared.note(&result, now.saturating_duration_since(begun));
                    result
                }
            };
            let (mut failure, verdict) = match result {
                Ok(answer) => {
                    if prepared.is_hedged() {
                        self.hedging.succeeded();
                    }
                    return Ok(answer);
                }
                Err(failed) => *failed,
            };
            sent = sent.max(failure.sent);
            failure.sent = sent;
            failure.attempts = attempt;
            let may = match verdict {
                _ if prepared.body.is_begun() => false,
                Verdict::NotSent => true,
                Verdict::Retryable => prepared.repeatable,
                Verdict::Final => false,
            };
            if !may {
                return Err(Box::new(failure));
            }
            let other = self.pool.load().has_other(&tried, *now);
            let elsewhere = other && matches!(verdict, Verdict::NotSent);
            // It costs no server anything, so it costs nothing of the budget, once.
            let free = elsewhere && attempt == 1;
            let wait = match failure.retry_after {
                // One instance speaks for itself, and others may have time now.
                Some(wait) if !(other && is_unavailable(&failure)) => wait,
                // Nobody was bothered, and somebody else may be there.
                _ if elsewhere => Duration::ZERO,
                _ => {
                    let backoff = prepared.decided.backoff;
                    let wait = backoff.wait_after(waited, attempt, &self.environment.rng);
                    waited = Some(wait);
                    wait
                }
            };
            let next = *now + wait;
            if attempt >= attempts_max {
                return Err(Box::new(given_up(failure, None)));
            }
            if next >= prepared.deadline {
                return Err(Box::new(given_up(failure, Some(NO_TIME))));
            }
            repeat = match free {
                true => Some(self.repeats.free()),
                false => self.repeats.withdraw(*now),
            };
            if repeat.is_none() {
                return Err(Box::new(given_up(failure, Some(NO_REPEAT))));
            }
            sleep_until(next).await;
            *now = Instant::now();
            attempt += 1;
            has_turn = false;
            before = Some(failure);
        }
    }

    /// There is no endpoint, after what went before.
    fn nowhere(&self, prepared: &Prepared, before: Option<CallFailure>) -> Box<CallFailure> {
        Box::new(match before {
            // What was sent was sent, wherever the endpoints have gone since.
            Some(failure) => given_up(
                failure,
                Some("no endpoint of the service is known any more"),
            ),
            None => {
                let kind = CallErrorKind::ServiceDiscovery;
                CallFailure::new(kind, &prepared.call, self.why_nowhere())
            }
        })
    }

    /// What the call says about where it should go.
    pub(super) fn wish<'w>(&'w self, prepared: &'w Prepared) -> Wish<'w> {
        let zone = prepared.zone.as_deref();
        Wish {
            hash: prepared.hash,
            zone: zone.or(self.settings.zone.as_deref()),
        }
    }
}

/// Whether one instance says that it cannot answer, which says nothing of the others. Where there are too
/// many requests (429) it is the service that says so.
fn is_unavailable(failure: &CallFailure) -> bool {
    failure.status == Some(StatusCode::SERVICE_UNAVAILABLE)
}

/// There is no turn for an attempt, after what went before.
fn no_turn(prepared: &Prepared, before: Option<CallFailure>, refused: Refused) -> Box<CallFailure> {
    Box::new(match before {
        Some(failure) => given_up(failure, Some("the rate allows no further attempt")),
        None => {
            let kind = CallErrorKind::RateLimited;
            let mut failure = CallFailure::new(kind, &prepared.call, refused.text);
            failure.retry_after = refused.retry_after;
            failure
        }
    })
}

fn no_time(prepared: &Prepared, before: Option<CallFailure>) -> Box<CallFailure> {
    Box::new(match before {
        Some(failure) => given_up(failure, Some(NO_TIME)),
        None => {
            let text = "its time was over before it was sent";
            CallFailure::new(CallErrorKind::Timeout, &prepared.call, text)
        }
    })
}

/// The last failure, as the failure of the whole call.
fn given_up(failure: CallFailure, why: Option<&'static str>) -> CallFailure {
    if failure.attempts <= 1 && why.is_none() {
        return failure;
    }
    let mut text = failure.text.to_string();
    if let Some(why) = why {
        text.push_str("; ");
        text.push_str(why);
    }
    let kind = if failure.attempts > 1 {
        CallErrorKind::RetryExhausted
    } else {
        failure.kind
    };
    CallFailure {
        kind,
        text: text.into(),
        ..failure
    }
}
