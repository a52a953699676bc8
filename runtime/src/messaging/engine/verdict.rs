//! From the outcome of an attempt to what is done with the message.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use crate::handling::{Failed, Fate, Outcome, Reason, truncate};
use crate::message::{Headers, Incoming, format_time, headers::name};
use crate::messaging::{RetryPolicy, Subscription};

use super::Environment;

/// How far the clocks of two instances may differ before a delayed message is thought early.
const CLOCK_SKEW_MAX: Duration = Duration::from_secs(5);

/// What is done with a message after an attempt.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Acknowledge it.
    Done,
    /// Acknowledge it; it is dropped for this reason.
    Discard(Failed),
    /// It goes to the dead letters.
    DeadLetter(Failed),
    /// Try again after this wait; the failed attempt counts.
    Retry { wait: Duration, failed: Failed },
    /// Stop fetching for this long, then try again; the attempt does not count.
    Pause { lasting: Duration, failed: Failed },
}

/// Decides. The retry policy is the handler's; a message that nobody takes is never tried again.
pub(super) fn decide(
    outcome: Outcome,
    incoming: &Incoming,
    policy: RetryPolicy,
    environment: &Environment,
) -> Verdict {
    if let (Some(points), Some(failed)) = (&environment.crash_points, &outcome.failed) {
        points.attempt_failed(incoming, failed);
    }
    let failed = outcome.failed;
    let failed =
        || failed.unwrap_or_else(|| Failed::new(Reason::Error, "unknown", "no reason was given"));
    match outcome.fate {
        Fate::Done => Verdict::Done,
        Fate::Discard => Verdict::Discard(failed()),
        Fate::DeadLetter => Verdict::DeadLetter(failed()),
        Fate::Pause { lasting } => {
            let failed = failed();
            Verdict::Pause { lasting, failed }
        }
        Fate::Retry { .. } if incoming.attempt >= policy.attempts => {
            Verdict::DeadLetter(exhausted(failed(), policy.attempts))
        }
        Fate::Retry { after } => {
            let jitter = 0.8 + environment.rng.unit() * 0.2;
            let next = incoming.attempt.saturating_add(1);
            let wait = after.unwrap_or_else(|| policy.wait_before(next).mul_f64(jitter));
            let failed = failed();
            Verdict::Retry { wait, failed }
        }
    }
}

/// An error that was tried often enough gets a reason of its own; a time-out, a panic or a failed
/// output keeps its reason, which says more.
fn exhausted(failed: Failed, attempts: u32) -> Failed {
    match failed.reason {
        Reason::Error | Reason::Abandoned if attempts > 1 => Failed {
            reason: Reason::RetriesExhausted,
            ..failed
        },
        _ => failed,
    }
}

/// How much longer a message that came back from a delay has to wait, if it is early.
pub(super) fn early(incoming: &Incoming, environment: &Environment) -> Option<Duration> {
    let due = incoming.headers.text(name::RETRY_DUE)?;
    let due = crate::message::parse_time(&due)?;
    let left = due.duration_since(environment.clock.now()).ok()?;
    (left > CLOCK_SKEW_MAX).then_some(left)
}

/// Counts a failed attempt on the message itself, for an attempt in this process.
pub(super) fn count_attempt(incoming: &mut Incoming, now: SystemTime) {
    incoming.attempt = incoming.attempt.saturating_add(1);
    incoming.headers.set(name::ATTEMPT, incoming.attempt);
    note_first_failure(&mut incoming.headers, now);
}

/// The headers of a message that waits on the broker for its attempt number `attempt`.
pub(super) fn retry_headers(
    incoming: &Incoming,
    attempt: u32,
    wait: Duration,
    now: SystemTime,
) -> Headers {
    let mut headers = identified(incoming);
    headers.set(name::ATTEMPT, attempt);
    headers.set(name::RETRY_DUE, format_time(now + wait));
    if attempt > 1 {
        note_first_failure(&mut headers, now);
    }
    headers
}

/// The headers of a dead letter: its own, and why, where from, how often and since when.
pub(super) fn dead_letter_headers(
    incoming: &Incoming,
    failed: &Failed,
    subscription: &Subscription,
    (service, handler): (&str, &str),
    now: SystemTime,
) -> Headers {
    let mut headers = identified(incoming);
    let first = headers.text(name::FIRST_FAILURE).map(Cow::into_owned);
    let added: [(&'static str, String); 10] = [
        (name::DLQ_REASON, failed.reason.as_str().to_owned()),
        (name::DLQ_ERROR_TYPE, failed.error_type.clone().into_owned()),
        (name::DLQ_ERROR, truncate(failed.text.clone())),
        (name::DLQ_ATTEMPTS, incoming.attempt.to_string()),
        (
            name::DLQ_FIRST_FAILED_AT,
            first.unwrap_or_else(|| format_time(now)),
        ),
        (name::DLQ_FAILED_AT, format_time(now)),
        (name::DLQ_ORIGIN, incoming.origin.to_string()),
        (name::DLQ_GROUP, subscription.group.to_string()),
        (name::DLQ_HANDLER, handler.to_owned()),
        (name::DLQ_SERVICE, service.to_owned()),
    ];
    for (name, value) in added {
        headers.set(name, value);
    }
    headers.set(name::DLQ_TOPIC, incoming.topic.to_string());
    headers
}

/// The message's headers with what a copy needs to stay the same message: its identity, and the
/// topic, which a broker's own field does not show any more.
fn identified(incoming: &Incoming) -> Headers {
    let mut headers = incoming.headers.clone();
    if headers.text(name::MESSAGE_ID).as_deref() != Some(incoming.id.as_str()) {
        headers.set(name::MESSAGE_ID, incoming.id.to_string());
    }
    headers.set(name::TOPIC, incoming.topic.to_string());
    headers
}

fn note_first_failure(headers: &mut Headers, now: SystemTime) {
    if !headers.contains(name::FIRST_FAILURE) {
        headers.set(name::FIRST_FAILURE, format_time(now));
    }
}
