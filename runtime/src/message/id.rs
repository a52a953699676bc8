//! The identity of a message: given, generated, or derived from the message that caused it.

use std::fmt;
use std::sync::Arc;

use uuid::Uuid;

use crate::clock::{Clock, Rng};

/// Longest identifier that is accepted from outside, in bytes.
pub const MESSAGE_ID_BYTES_MAX: usize = 128;

/// Namespace of derived identifiers; changing it would break deduplication across versions.
const DERIVED: Uuid = Uuid::from_u128(0x8d1c_1a2e_6b0f_4c53_9a57_1f8e_2f0b_77c4);

/// Identifies one message across repeats: a retry, a redelivery and a resend keep it.
///
/// Ours are UUIDs (version 7 when generated, version 5 when derived); foreign ones are any
/// printable text up to [`MESSAGE_ID_BYTES_MAX`] bytes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(Arc<str>);

impl MessageId {
    /// Takes an identifier from outside. `None` if it is empty, too long, or not printable ASCII
    /// without spaces.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let fits = !text.is_empty()
            && text.len() <= MESSAGE_ID_BYTES_MAX
            && text.bytes().all(|byte| byte.is_ascii_graphic());
        fits.then(|| Self(text.into()))
    }

    /// A new identifier, a UUID of version 7: they sort by time of creation.
    #[must_use]
    pub fn generate(clock: &dyn Clock, rng: &Rng) -> Self {
        Self::generate_at(clock.unix_millis(), rng)
    }

    /// A new identifier of this time, in milliseconds since the Unix epoch.
    pub(crate) fn generate_at(unix_millis: u64, rng: &Rng) -> Self {
        let [one, two] = rng.words();
        let random = u128::from(one) << 64 | u128::from(two);
        let bits = u128::from(unix_millis) << 80 | random & ((1 << 80) - 1);
        let version_7 = bits & !(0xf << 76) | 7 << 76;
        let variant_rfc = version_7 & !(0b11 << 62) | 0b10 << 62;
        Self::from_uuid(Uuid::from_u128(variant_rfc))
    }

    /// The identifier of the `index`-th message that `subscriber` sends while it handles `self`.
    ///
    /// `subscriber` names the service too (`billing.charge`): two services whose handlers have one name
    /// must not send two messages under one identity.
    ///
    /// The same input gives the same identifiers again, so a repeat after a crash can be
    /// recognised downstream.
    ///
    /// ```
    /// # use interline::MessageId;
    /// let input = MessageId::parse("order-1").unwrap();
    /// assert_eq!(input.derive("charge", 0), input.derive("charge", 0));
    /// assert_ne!(input.derive("charge", 0), input.derive("charge", 1));
    /// ```
    #[must_use]
    pub fn derive(&self, subscriber: &str, index: usize) -> Self {
        let name = format!("{}\u{0}{subscriber}\u{0}{index}", self.0);
        Self::from_uuid(Uuid::new_v5(&DERIVED, name.as_bytes()))
    }

    /// The text as it stands in the header `message-id`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text, shared.
    pub(crate) fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }

    fn from_uuid(uuid: Uuid) -> Self {
        let mut buffer = Uuid::encode_buffer();
        Self(Arc::from(&*uuid.hyphenated().encode_lower(&mut buffer)))
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;

    #[test]
    fn foreign_identifiers_are_bounded_and_printable() {
        assert!(MessageId::parse("a:b/c-1").is_some());
        assert!(MessageId::parse("").is_none());
        assert!(MessageId::parse("two words").is_none());
        assert!(MessageId::parse("line\n").is_none());
        assert!(MessageId::parse(&"x".repeat(MESSAGE_ID_BYTES_MAX)).is_some());
        assert!(MessageId::parse(&"x".repeat(MESSAGE_ID_BYTES_MAX + 1)).is_none());
    }

    #[test]
    fn generated_identifiers_are_version_7_and_differ() {
        let rng = Rng::with_seed(1);
        let one = MessageId::generate(&SystemClock, &rng);
        let two = MessageId::generate(&SystemClock, &rng);
        assert_ne!(one, two);
        assert_eq!(one.as_str().len(), 36);
        assert_eq!(one.as_str().as_bytes()[14], b'7');
    }

    #[test]
    fn generated_identifiers_sort_by_time_and_are_what_the_standard_says() {
        let rng = Rng::with_seed(2);
        let mut before = MessageId::generate_at(1_700_000_000_000, &rng);
        for millis in 1_700_000_000_001..1_700_000_000_200 {
            let id = MessageId::generate_at(millis, &rng);
            assert!(id > before);
            let uuid = Uuid::parse_str(id.as_str()).unwrap();
            assert_eq!(uuid.get_version(), Some(uuid::Version::SortRand));
            assert_eq!(uuid.get_variant(), uuid::Variant::RFC4122);
            let (seconds, nanos) = uuid.get_timestamp().unwrap().to_unix();
            assert_eq!(seconds * 1_000 + u64::from(nanos) / 1_000_000, millis);
            before = id;
        }
    }

    #[test]
    fn derived_identifiers_depend_on_every_part_and_never_change() {
        let input = MessageId::parse("in").unwrap();
        let derived = input.derive("charge", 0);
        assert_eq!(derived, MessageId::parse("in").unwrap().derive("charge", 0));
        assert_ne!(derived, input.derive("charge", 1));
        assert_ne!(derived, input.derive("refund", 0));
        assert_ne!(
            derived,
            MessageId::parse("in2").unwrap().derive("charge", 0)
        );
        assert_eq!(derived.as_str().as_bytes()[14], b'5');
    }
}
