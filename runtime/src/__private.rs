//! What generated code calls. Not part of the public interface: it changes without notice.

use std::fmt;
use std::sync::Arc;

pub use bytes::Bytes;
pub use inventory;

pub use crate::handling::Extract;
#[cfg(feature = "protobuf")]
pub use crate::handling::foreign_protobuf;
pub use crate::handling::{
    Batch, Bind, Failure, Fate, Handler, IntoBatchOutcome, IntoOutcome, OnUnknown, Outcome,
    Payload, PayloadError, Raw, Rejection, Scope, describe, foreign, header, message,
    optional_header, optional_segment, run_batch, segment, tombstone,
};
pub use crate::message::{
    CodecError, Contract, Encoded, Encoder, Incoming, Keyed, Location, Message, TopicError,
    topic_flaw,
};
pub use crate::messaging::{
    Ack, Argument, BatchOptions, ExchangeKind, GroupOption, OrderedBy, QueueKind, RabbitMqOptions,
    Rate, RetryOptions, Start, SubscriberOptions, TopologyMode,
};
pub use crate::registry::{
    Registration, Service, ServiceIdentity, Source, Subscriber, SubscriberDescriptor,
};

/// Renders a topic's template.
///
/// # Errors
/// [`TopicError`] if a value cannot be a segment.
pub fn render_topic(
    contract: &'static Contract,
    fields: &[(&'static str, &dyn fmt::Display)],
) -> Result<std::borrow::Cow<'static, str>, TopicError> {
    crate::message::render_topic(contract.topic, fields)
}

/// Resolves an extractor before anything runs.
pub fn prepare<E: Extract>(bind: &mut Bind<'_>) -> Option<E::Prepared> {
    E::prepare(bind)
}

/// Takes an argument for one message.
///
/// # Errors
/// The outcome of a message that lacks it.
pub fn extract<E: Extract>(
    prepared: &E::Prepared,
    incoming: &Arc<Incoming>,
    scope: &Scope,
) -> Result<E, Outcome> {
    E::extract(prepared, incoming, scope).map_err(Outcome::from)
}

/// Turns what a handler returned into an outcome, with what it sent through `Out`.
pub fn finish<R: IntoOutcome>(returned: R, scope: &Scope) -> Outcome {
    let mut outcome = returned.into_outcome(scope);
    if outcome.fate == Fate::Done {
        let mut sent = scope.take_sent();
        sent.append(&mut outcome.outgoing);
        outcome.outgoing = sent;
    }
    outcome
}

/// Claimed by each subscriber for its crate's marker, so that the same claim twice does not
/// compile: two subscribers that would share one subscription and message type.
pub trait AlreadySubscribed<const CLAIM: u64> {}

/// The claim of a subscriber: a hash over what must not occur twice.
#[must_use]
pub const fn claim(broker: &str, group: &str, topics: &[&Contract]) -> u64 {
    let mut hash = text(FNV_OFFSET, broker);
    hash = text(hash, group);
    let mut at = 0;
    while at < topics.len() {
        hash = text(hash, topics[at].topic);
        hash = text(hash, topics[at].name);
        at += 1;
    }
    hash
}

/// The claim of a subscriber to a topic of others.
#[must_use]
pub const fn claim_topic(broker: &str, group: &str, topic: &str) -> u64 {
    text(text(text(FNV_OFFSET, broker), group), topic)
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0100_0000_01b3;

const fn text(mut hash: u64, text: &str) -> u64 {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u64).wrapping_mul(FNV_PRIME);
        at += 1;
    }
    // A separator that no text holds, so that ("a", "b") and ("ab", "") differ.
    (hash ^ 0xff).wrapping_mul(FNV_PRIME)
}
