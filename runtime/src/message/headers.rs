//! Headers: typed, ordered, total to read. A header from a foreign client never fails a message.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::text::Text;

/// The names of the headers that Interline reads and writes, the same on every broker.
pub mod name {
    /// The trace context's baggage (W3C).
    pub const BAGGAGE: &str = "baggage";
    /// The id of the message that was being handled when this one was sent.
    pub const CAUSATION_ID: &str = "causation-id";
    /// The media type that selects the codec.
    pub const CONTENT_TYPE: &str = "content-type";
    /// Ties together all messages that one original message led to.
    pub const CORRELATION_ID: &str = "correlation-id";
    /// Until when the one who asks waits for a reply, RFC 3339.
    pub const DEADLINE: &str = "x-deadline";
    /// The handler that gave the message up.
    pub const DLQ_HANDLER: &str = "x-dlq-handler";
    /// How many attempts were made.
    pub const DLQ_ATTEMPTS: &str = "x-dlq-attempts";
    /// The text of the last error, truncated.
    pub const DLQ_ERROR: &str = "x-dlq-error";
    /// The type of the last error.
    pub const DLQ_ERROR_TYPE: &str = "x-dlq-error-type";
    /// When the message was given up, RFC 3339.
    pub const DLQ_FAILED_AT: &str = "x-dlq-failed-at";
    /// When the first attempt failed, RFC 3339.
    pub const DLQ_FIRST_FAILED_AT: &str = "x-dlq-first-failed-at";
    /// The group whose subscription gave the message up.
    pub const DLQ_GROUP: &str = "x-dlq-group";
    /// Where the message was read: broker and place.
    pub const DLQ_ORIGIN: &str = "x-dlq-origin";
    /// Why the message was given up; the codes are those of `Reason`.
    pub const DLQ_REASON: &str = "x-dlq-reason";
    /// The service that gave the message up.
    pub const DLQ_SERVICE: &str = "x-dlq-service";
    /// The topic the message was published to.
    pub const DLQ_TOPIC: &str = "x-dlq-topic";
    /// Prefix of every header that a dead letter adds.
    pub const DLQ_PREFIX: &str = "x-dlq-";
    /// When the first attempt failed, RFC 3339.
    pub const FIRST_FAILURE: &str = "x-first-failure";
    /// Prefix of every header of a fault.
    pub const FAULT_PREFIX: &str = "x-fault-";
    /// Of a fault: how many attempts were made.
    pub const FAULT_ATTEMPTS: &str = "x-fault-attempts";
    /// Of a fault: the text of the error, truncated.
    pub const FAULT_ERROR: &str = "x-fault-error";
    /// Of a fault: the type of the error.
    pub const FAULT_ERROR_TYPE: &str = "x-fault-error-type";
    /// Of a fault: the handler that failed.
    pub const FAULT_HANDLER: &str = "x-fault-handler";
    /// Of a fault: why the request failed; the codes are those of `Reason`.
    pub const FAULT_REASON: &str = "x-fault-reason";
    /// Of a fault: whether the same request can succeed later.
    pub const FAULT_RETRYABLE: &str = "x-fault-retryable";
    /// Of a fault: the service that failed.
    pub const FAULT_SERVICE: &str = "x-fault-service";
    /// Of a reply: the id of the request.
    pub const IN_REPLY_TO: &str = "in-reply-to";
    /// The attempt that comes next, counted from 1.
    pub const ATTEMPT: &str = "x-attempt";
    /// The identity of the message.
    pub const MESSAGE_ID: &str = "message-id";
    /// The key of the message, where the broker has no field of its own for it.
    pub const MESSAGE_KEY: &str = "message-key";
    /// The name of the message's contract.
    pub const MESSAGE_TYPE: &str = "message-type";
    /// The version of the message's contract.
    pub const MESSAGE_VERSION: &str = "message-version";
    /// When the message was first published, RFC 3339.
    pub const PUBLISHED_AT: &str = "published-at";
    /// Set on a message that was taken from the dead letters: by which re-drive.
    pub const REDRIVEN_BY: &str = "x-redriven-by";
    /// Set on a message that was taken from the dead letters: where it lay.
    pub const REDRIVEN_FROM: &str = "x-redriven-from";
    /// Of a request: where its reply goes.
    pub const REPLY_TO: &str = "reply-to";
    /// When a delayed retry is due, RFC 3339.
    pub const RETRY_DUE: &str = "x-retry-due";
    /// Of a message that was published for later: when it was due, RFC 3339.
    pub const SCHEDULED_FOR: &str = "x-scheduled-for";
    /// The service that published the message.
    pub const SENDER: &str = "sender";
    /// The topic the message was first published to; needed when a broker's own field changes.
    pub const TOPIC: &str = "x-topic";
    /// The trace context (W3C).
    pub const TRACEPARENT: &str = "traceparent";
    /// The trace context's vendor part (W3C).
    pub const TRACESTATE: &str = "tracestate";
}

/// One header's value. Brokers with typed headers keep the type; the others carry text.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum HeaderValue {
    /// A truth value.
    Bool(bool),
    /// Bytes that are not known to be text.
    Bytes(Bytes),
    /// A floating point number.
    Float(f64),
    /// A signed number.
    Int(i64),
    /// A list, as AMQP's field array.
    List(Vec<HeaderValue>),
    /// Present and empty.
    Null,
    /// Named values, as AMQP's field table.
    Table(Vec<(String, HeaderValue)>),
    /// Text.
    Text(Text),
    /// Seconds since the Unix epoch.
    Timestamp(u64),
    /// An unsigned number beyond the signed range.
    UInt(u64),
}

impl HeaderValue {
    /// The value as text: text itself, bytes that are UTF-8, numbers and truth values written out.
    /// `None` for lists, tables, null and other bytes.
    #[must_use]
    pub fn to_text(&self) -> Option<Cow<'_, str>> {
        Some(match self {
            Self::Text(text) => Cow::Borrowed(text),
            Self::Bytes(bytes) => Cow::Borrowed(std::str::from_utf8(bytes).ok()?),
            Self::Bool(value) => Cow::Borrowed(if *value { "true" } else { "false" }),
            Self::Float(value) => Cow::Owned(value.to_string()),
            Self::Int(value) => Cow::Owned(value.to_string()),
            Self::Timestamp(value) | Self::UInt(value) => Cow::Owned(value.to_string()),
            Self::List(_) | Self::Null | Self::Table(_) => return None,
        })
    }

    /// The value as a number: signed or unsigned numbers, and text that is one.
    #[must_use]
    pub fn to_u64(&self) -> Option<u64> {
        match self {
            Self::Int(value) => u64::try_from(*value).ok(),
            Self::Timestamp(value) | Self::UInt(value) => Some(*value),
            Self::Text(_) | Self::Bytes(_) => self.to_text()?.parse().ok(),
            _ => None,
        }
    }
}

impl From<&'static str> for HeaderValue {
    fn from(text: &'static str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for HeaderValue {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<Cow<'static, str>> for HeaderValue {
    fn from(text: Cow<'static, str>) -> Self {
        Self::Text(text.into())
    }
}

impl From<Arc<str>> for HeaderValue {
    fn from(text: Arc<str>) -> Self {
        Self::Text(text.into())
    }
}

impl From<Text> for HeaderValue {
    fn from(text: Text) -> Self {
        Self::Text(text)
    }
}

impl From<Bytes> for HeaderValue {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<bool> for HeaderValue {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i64> for HeaderValue {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<u32> for HeaderValue {
    fn from(value: u32) -> Self {
        Self::Int(i64::from(value))
    }
}

impl From<f64> for HeaderValue {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

/// The headers of a message, in order of insertion. Names are compared without regard to ASCII
/// case; where a broker hands over a name twice, the last value wins.
///
/// ```
/// # use interline::Headers;
/// let mut headers = Headers::new();
/// headers.set("x-tenant", "acme");
/// assert_eq!(headers.text("X-Tenant").as_deref(), Some("acme"));
/// ```
///
/// A clone is cheap: it shares the headers until one of both changes.
#[derive(Clone, Default)]
pub struct Headers(Option<Arc<Vec<Header>>>);

type Header = (Cow<'static, str>, HeaderValue);

impl Headers {
    /// No headers.
    #[must_use]
    pub const fn new() -> Self {
        Self(None)
    }

    /// No headers, with room for `count`.
    #[must_use]
    pub fn with_capacity(count: usize) -> Self {
        Self(Some(Arc::new(Vec::with_capacity(count))))
    }

    /// How many headers there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.all().len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all().is_empty()
    }

    /// The value of `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&HeaderValue> {
        self.all()
            .iter()
            .find(|(known, _)| is(known, name))
            .map(|(_, value)| value)
    }

    /// The value of `name` as text; see [`HeaderValue::to_text`].
    #[must_use]
    pub fn text(&self, name: &str) -> Option<Cow<'_, str>> {
        self.get(name)?.to_text()
    }

    /// Whether `name` is present.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Sets `name`, in its place if it was present.
    pub fn set(&mut self, name: impl Into<Cow<'static, str>>, value: impl Into<HeaderValue>) {
        let (name, value) = (name.into(), value.into());
        let headers = self.all_mut();
        match headers.iter_mut().find(|(known, _)| is(known, &name)) {
            Some((_, slot)) => *slot = value,
            None => headers.push((name, value)),
        }
    }

    /// These headers, whose names are known to differ.
    #[cfg(feature = "rabbitmq")]
    pub(crate) fn of_distinct(headers: Vec<(Cow<'static, str>, HeaderValue)>) -> Self {
        Self(Some(Arc::new(headers)))
    }

    /// Adds `name` without looking whether it is present. For names that are known to be new.
    pub(crate) fn push(&mut self, name: &'static str, value: impl Into<HeaderValue>) {
        debug_assert!(!self.contains(name), "`{name}` is pushed twice");
        self.all_mut().push((Cow::Borrowed(name), value.into()));
    }

    /// These headers, of which several are to be filled in; with `blank` none of those is there yet.
    pub(crate) fn filling(&mut self, blank: bool) -> Filling<'_> {
        let all = self.all_mut();
        Filling { all, blank }
    }

    /// Takes `name` out.
    pub fn remove(&mut self, name: &str) -> Option<HeaderValue> {
        let at = self
            .all()
            .iter()
            .position(|(known, _)| known.eq_ignore_ascii_case(name))?;
        Some(self.all_mut().remove(at).1)
    }

    /// Keeps the headers for which `keep` says so.
    pub fn retain(&mut self, mut keep: impl FnMut(&str, &HeaderValue) -> bool) {
        self.all_mut().retain(|(name, value)| keep(name, value));
    }

    /// All headers, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &HeaderValue)> {
        self.all().iter().map(|(name, value)| (&**name, value))
    }

    fn all(&self) -> &[Header] {
        self.0.as_ref().map_or(&[], |headers| headers)
    }

    fn all_mut(&mut self) -> &mut Vec<Header> {
        Arc::make_mut(self.0.get_or_insert_default())
    }
}

/// Headers that are being filled in: they are made one's own once, not for each.
pub(crate) struct Filling<'a> {
    all: &'a mut Vec<Header>,
    blank: bool,
}

impl Filling<'_> {
    /// Adds `name`, unless it is there.
    pub(crate) fn fill(&mut self, name: &'static str, value: impl FnOnce() -> HeaderValue) {
        let is_there = || self.all.iter().any(|(known, _)| is(known, name));
        debug_assert!(!(self.blank && is_there()), "`{name}` is there already");
        if self.blank || !is_there() {
            self.all.push((Cow::Borrowed(name), value()));
        }
    }
}

/// Whether two names are the same header. Most are not even of one length, and ours are written the
/// same.
fn is(known: &str, name: &str) -> bool {
    known.len() == name.len() && (known == name || known.eq_ignore_ascii_case(name))
}

impl PartialEq for Headers {
    fn eq(&self, other: &Self) -> bool {
        self.all() == other.all()
    }
}

impl<N: Into<Cow<'static, str>>, V: Into<HeaderValue>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        let mut headers = Self::new();
        headers.extend(pairs);
        headers
    }
}

impl<N: Into<Cow<'static, str>>, V: Into<HeaderValue>> Extend<(N, V)> for Headers {
    fn extend<I: IntoIterator<Item = (N, V)>>(&mut self, pairs: I) {
        for (name, value) in pairs {
            self.set(name, value);
        }
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_ignore_case_and_the_last_value_wins() {
        let headers: Headers = [("A", "1"), ("b", "2"), ("a", "3")].into_iter().collect();
        assert_eq!(headers.len(), 2);
        assert_eq!(headers.text("a").as_deref(), Some("3"));
    }

    #[test]
    fn every_kind_of_value_can_be_read_without_an_error() {
        let cases = [
            (HeaderValue::Bool(true), Some("true")),
            (HeaderValue::Bytes(Bytes::from_static(b"raw")), Some("raw")),
            (HeaderValue::Bytes(Bytes::from_static(b"\xff")), None),
            (HeaderValue::Float(1.5), Some("1.5")),
            (HeaderValue::Int(-3), Some("-3")),
            (HeaderValue::List(vec![]), None),
            (HeaderValue::Null, None),
            (HeaderValue::Table(vec![]), None),
            (HeaderValue::Timestamp(9), Some("9")),
            (HeaderValue::UInt(u64::MAX), Some("18446744073709551615")),
        ];
        for (value, text) in cases {
            assert_eq!(value.to_text().as_deref(), text, "{value:?}");
        }
        assert_eq!(HeaderValue::Int(-1).to_u64(), None);
        assert_eq!(HeaderValue::from("12").to_u64(), Some(12));
    }

    #[test]
    fn a_clone_keeps_what_it_had() {
        let mut headers: Headers = [("a", "1")].into_iter().collect();
        let before = headers.clone();
        headers.set("a", "2");
        headers.set("b", "3");
        assert_eq!(before, [("a", "1")].into_iter().collect());
        assert_eq!(Headers::with_capacity(4), Headers::new());
    }

    #[test]
    fn a_removed_header_is_gone() {
        let mut headers: Headers = [("a", "1"), ("b", "2")].into_iter().collect();
        assert_eq!(headers.remove("A"), Some("1".into()));
        assert!(!headers.contains("a"));
        headers.retain(|name, _| name != "b");
        assert!(headers.is_empty());
    }
}
