//! How long a message is worth delivering. Kafka knows of no such thing, so the time at which it ends travels
//! with the message, and whoever would hand it to a handler looks.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::sleep;
use tracing::{debug, warn};

use crate::handling::Reason;
use crate::message::headers::name;
use crate::message::{Headers, Incoming, format_time};
use crate::observability::metrics::{DEAD_LETTERED, Series};

use super::assigned::{Assigned, letter_key, set_topic};
use super::member::Copying;
use super::publish::Record;

/// Until when the message is worth delivering, in milliseconds since 1970.
const EXPIRES: &str = "x-expires-at";
/// The wait before a copy that failed is tried again.
const AGAIN: Duration = Duration::from_millis(500);

/// Notes how long a message is worth delivering, counted from `from`.
pub(super) fn stamp(headers: &mut Headers, ttl: Option<Duration>, from: u64) {
    if let Some(ttl) = ttl {
        let millis = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        headers.set(EXPIRES, from.saturating_add(millis).to_string());
    }
}

/// When a message ends to be worth delivering; `None` if never, or if that cannot be read.
pub(super) fn of(headers: &Headers) -> Option<u64> {
    headers.text(EXPIRES)?.parse().ok()
}

/// Moves a message that has outlived its time, and that counts as out, to the dead letters.
pub(super) async fn give_up(assigned: Arc<Assigned>, offset: i64, incoming: Arc<Incoming>) {
    let member = &assigned.member;
    let (core, subscription) = (&member.core, &member.subscription);
    let reason = Reason::Expired.as_str();
    warn!(
        broker = %core.context.name,
        subscription = %subscription.label,
        id = %incoming.id,
        reason,
        "a message is given up before its handler sees it"
    );
    let labels = vec![Arc::clone(&subscription.label), "".into(), reason.into()];
    Series::of(core.context.metrics.as_deref(), DEAD_LETTERED, labels).record(1.0);
    if !subscription.dead_letter {
        assigned.finish(offset);
        return;
    }
    let mut headers = incoming.headers.clone();
    set_topic(&mut headers, &incoming);
    headers.set(name::MESSAGE_ID, incoming.id.to_string());
    headers.set(name::DLQ_REASON, reason);
    headers.set(name::DLQ_ATTEMPTS, incoming.attempt);
    headers.set(name::DLQ_ORIGIN, incoming.origin.to_string());
    headers.set(name::DLQ_TOPIC, incoming.topic.to_string());
    headers.set(name::DLQ_GROUP, subscription.group.to_string());
    headers.set(name::DLQ_SERVICE, core.context.service.to_string());
    headers.set(name::DLQ_FAILED_AT, format_time(core.context.clock.now()));
    if let Some(key) = &incoming.key
        && !headers.contains(name::MESSAGE_KEY)
    {
        headers.set(name::MESSAGE_KEY, key.to_string());
    }
    let key = letter_key(&incoming);
    let record = Record {
        topic: &member.names.dead_letters,
        partition: None,
        key: Some(key.as_bytes()),
        body: Some(&incoming.body),
        headers: &headers,
        timestamp: None,
    };
    // One whose partition was given up meanwhile is the next owner's to give up.
    while assigned.is_live() {
        let sent = {
            let _copying = Copying::begin(member);
            assigned.send(&record).await
        };
        match sent {
            Ok(()) => {
                member.keeps_expired.store(true, Ordering::Release);
                assigned.finish(offset);
                return;
            }
            Err(error) => {
                let why = error.told(record.topic);
                if member.keeps_expired.swap(false, Ordering::AcqRel) {
                    warn!(
                        broker = %core.context.name,
                        subscription = %subscription.label,
                        id = %incoming.id,
                        "a message that has outlived its time cannot be put into the dead letters, and \
                         its partition does not go on beyond it: {why}; trying again"
                    );
                } else {
                    debug!(broker = %core.context.name, id = %incoming.id, "{why}");
                }
                sleep(AGAIN.mul_f64(0.5 + core.context.rng.unit())).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_cannot_be_read_never_comes() {
        let mut headers = Headers::new();
        assert_eq!(of(&headers), None);
        stamp(&mut headers, None, 5);
        assert!(headers.is_empty());
        stamp(&mut headers, Some(Duration::from_secs(2)), 5);
        assert_eq!(of(&headers), Some(2_005));
        stamp(&mut headers, Some(Duration::MAX), 5);
        assert_eq!(of(&headers), Some(u64::MAX));
        headers.set(EXPIRES, "tomorrow");
        assert_eq!(of(&headers), None);
    }
}
