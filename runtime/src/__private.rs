//! What generated code calls. Not part of the public interface: it changes without notice.

mod broken;
mod call;
mod failure;
#[cfg(feature = "http")]
pub mod needs_feature_http;
mod wire;

pub use std::borrow::Cow;
pub use std::string::String;
pub use std::sync::Arc;
pub use std::vec::Vec;

pub use bytes::Bytes;
pub use inventory;

pub use crate::handling::{
    Batch, Bind, Failure, Fate, Handler, OnUnknown, Outcome, Payload, PayloadError, Scope,
    tombstone,
};
pub use crate::message::{
    AnsweredBy, CodecError, Contract, Encoded, Encoder, Incoming, Keyed, Location, Message,
    Request, TopicError,
};
pub use crate::messaging::{
    Ack, Argument, BatchOptions, BreakerOptions, DeliveryMode, ExchangeKind, GroupOption,
    KafkaOptions, KafkaRetry, OrderedBy, QueueKind, RabbitMqOptions, Rate, RedisOptions,
    RetryOptions, Start, SubscriberOptions, TopologyMode,
};
pub use crate::registry::{
    Registration, Service, ServiceIdentity, Source, Subscriber, SubscriberDescriptor,
};

use crate::message::topic_flaw;

pub use broken::{BROKEN_CONTRACT, BROKEN_SUBSCRIBER, broken_codec};
pub use call::*;
pub use failure::*;
pub use wire::*;

/// The crate that holds handlers, as `service!` declares it.
pub trait ThisCrate {
    /// Its identity.
    const IDENTITY: &'static ServiceIdentity;
}

/// Whether this is the path of a crate's root.
#[must_use]
pub const fn is_crate_root(module_path: &str) -> bool {
    let bytes = module_path.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b':' {
            return false;
        }
        at += 1;
    }
    true
}

/// Whether this is a topic, without placeholders.
#[must_use]
pub const fn is_topic(topic: &str) -> bool {
    let bytes = topic.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b'{' {
            return false;
        }
        at += 1;
    }
    topic_flaw(topic).is_none()
}

/// Whether all of these have a key.
#[must_use]
pub const fn all_keyed(contracts: &[&Contract]) -> bool {
    let mut at = 0;
    while at < contracts.len() {
        if !contracts[at].keyed {
            return false;
        }
        at += 1;
    }
    true
}

/// Whether the topics of all of these have the placeholder `{name}`.
#[must_use]
pub const fn all_have_segment(contracts: &[&Contract], name: &str) -> bool {
    let mut at = 0;
    while at < contracts.len() {
        if !has_segment(contracts[at].topic.as_bytes(), name.as_bytes()) {
            return false;
        }
        at += 1;
    }
    true
}

const fn has_segment(topic: &[u8], name: &[u8]) -> bool {
    let mut at = 0;
    while at + name.len() + 1 < topic.len() {
        if topic[at] == b'{' && topic[at + name.len() + 1] == b'}' {
            let mut same = 0;
            while same < name.len() && topic[at + 1 + same] == name[same] {
                same += 1;
            }
            if same == name.len() {
                return true;
            }
        }
        at += 1;
    }
    false
}

/// Whether no two of these have the same name on the wire.
#[must_use]
pub const fn all_distinct(contracts: &[&Contract]) -> bool {
    let mut left = 0;
    while left < contracts.len() {
        let mut right = left + 1;
        while right < contracts.len() {
            if same(
                contracts[left].name.as_bytes(),
                contracts[right].name.as_bytes(),
            ) {
                return false;
            }
            right += 1;
        }
        left += 1;
    }
    true
}

const fn same(left: &[u8], right: &[u8]) -> bool {
    if left.len() != right.len() {
        return false;
    }
    let mut at = 0;
    while at < left.len() {
        if left[at] != right[at] {
            return false;
        }
        at += 1;
    }
    true
}

/// Claimed by each subscriber for its crate's marker, so that the same claim twice does not
/// compile: two subscribers that would share one subscription and message type.
pub trait AlreadySubscribed<const CLAIM: u64> {}

/// The claim of a subscriber: a hash over what must not occur twice.
#[must_use]
pub const fn claim(broker: &str, group: &str, topics: &[&Contract]) -> u64 {
    let mut hash = fold(FNV_OFFSET, broker);
    hash = fold(hash, group);
    let mut at = 0;
    while at < topics.len() {
        hash = fold(hash, topics[at].topic);
        hash = fold(hash, topics[at].name);
        at += 1;
    }
    hash
}

/// The claim of a subscriber to a topic of others.
#[must_use]
pub const fn claim_topic(broker: &str, group: &str, topic: &str) -> u64 {
    fold(fold(fold(FNV_OFFSET, broker), group), topic)
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0100_0000_01b3;

const fn fold(mut hash: u64, text: &str) -> u64 {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u64).wrapping_mul(FNV_PRIME);
        at += 1;
    }
    // A separator that no text holds, so that ("a", "b") and ("ab", "") differ.
    (hash ^ 0xff).wrapping_mul(FNV_PRIME)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn contract(name: &'static str, topic: &'static str) -> Contract {
        let location = Location {
            file: "",
            line: 1,
            column: 1,
        };
        Contract::new(name, topic, location)
    }

    #[test]
    fn constants_are_checked_as_at_compile_time() {
        assert!(is_crate_root("billing") && !is_crate_root("billing::mail"));
        assert!(is_topic("a.b") && !is_topic("a.{b}") && !is_topic("") && !is_topic("a..b"));
        let (a, b) = (contract("A", "x.{region}.y"), contract("B", "{region}"));
        assert!(all_have_segment(&[&a, &b], "region"));
        assert!(!all_have_segment(&[&a, &b], "regio") && !all_have_segment(&[&a], "regions"));
        assert!(all_distinct(&[&a, &b]) && !all_distinct(&[&a, &b, &a]));
        let keyed = a.keyed();
        assert!(all_keyed(&[&keyed]) && !all_keyed(&[&keyed, &b]));
    }

    #[test]
    fn claims_differ_where_any_part_does() {
        let (a, b) = (contract("A", "t"), contract("B", "t"));
        let all = [
            claim("", "g", &[&a]),
            claim("", "g", &[&b]),
            claim("", "h", &[&a]),
            claim("g", "", &[&a]),
            claim_topic("", "g", "t"),
            claim_topic("", "gt", ""),
        ];
        let distinct: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
        assert_eq!(claim("", "g", &[&a]), claim("", "g", &[&a]));
    }
}
