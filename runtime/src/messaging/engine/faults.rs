//! Requests that are not answered with a reply: those that failed get a fault, those that nobody waits
//! for any more are dropped.

use std::time::{Duration, SystemTime};

use crate::handling::{Failed, Fault, describe, is_request};
use crate::message::{Incoming, headers::name, parse_time};

use super::subscription::{HandlerRuntime, Subscribed};

/// How far the clocks of the one who asks and of this process may differ before a request is thought
/// expired.
const CLOCK_SKEW_MAX: Duration = Duration::from_secs(1);

/// Whether the one who asked has stopped waiting.
pub(super) fn has_expired(handler: &HandlerRuntime, incoming: &Incoming, now: SystemTime) -> bool {
    if !handler.replies || !is_request(incoming) {
        return false;
    }
    let deadline = incoming.headers.text(name::DEADLINE);
    let deadline = deadline.and_then(|text| parse_time(&text));
    deadline.is_some_and(|deadline| now > deadline + CLOCK_SKEW_MAX)
}

/// Tells the one who asked that there will be no reply, and why. What cannot be told is left to their
/// time-out: the message itself is settled all the same.
pub(super) async fn tell(
    subscribed: &Subscribed,
    handler: &HandlerRuntime,
    incoming: &Incoming,
    failed: &Failed,
) {
    if !handler.replies {
        return;
    }
    let fault = Fault::of(failed, incoming.attempt, &handler.service, &handler.name);
    let Some(outgoing) = handler.publisher(incoming).fault(incoming, &fault) else {
        return;
    };
    if let Err(error) = subscribed.environment.publishing.publish(outgoing).await {
        let label = &**subscribed.label();
        tracing::warn!(subscription = label, subscriber = &*handler.name, id = %incoming.id, error = %describe(&error), "the one who asked could not be told of the failure");
    }
}
