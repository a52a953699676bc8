//! Correlation and trace context: read from a message, written on the next.

use std::borrow::Cow;
use std::fmt;

use crate::clock::Rng;
use crate::message::{Headers, Incoming, MessageId, headers::name};

/// Longest `tracestate` or `baggage` that is passed on, in bytes; a longer one is dropped.
const CONTEXT_BYTES_MAX: usize = 8_192;

/// A position in a distributed trace, as in W3C Trace Context (`traceparent`, `tracestate`).
///
/// What arrives is not trusted: anything malformed starts a new trace instead of failing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: u128,
    span_id: u64,
    flags: u8,
    state: Option<String>,
    baggage: Option<String>,
}

impl TraceContext {
    /// The first span of a new trace.
    #[must_use]
    pub fn root(rng: &Rng) -> Self {
        let [high, low, span] = rng.words();
        Self {
            trace_id: (u128::from(high) << 64 | u128::from(low)).max(1),
            span_id: span.max(1),
            flags: 1,
            state: None,
            baggage: None,
        }
    }

    /// The context that a message carries, if it carries a valid one.
    #[must_use]
    pub fn read(headers: &Headers) -> Option<Self> {
        let mut context = Self::parse(&headers.text(name::TRACEPARENT)?)?;
        let bounded = |name| {
            let value = headers.text(name)?;
            (value.len() <= CONTEXT_BYTES_MAX).then(|| value.into_owned())
        };
        context.state = bounded(name::TRACESTATE);
        context.baggage = bounded(name::BAGGAGE);
        Some(context)
    }

    /// A new span below this one.
    #[must_use]
    pub fn child(&self, rng: &Rng) -> Self {
        Self {
            span_id: new_span_id(rng),
            ..self.clone()
        }
    }

    /// The trace's identity, 32 hexadecimal digits.
    #[must_use]
    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.trace_id)
    }

    /// The span's identity, 16 hexadecimal digits.
    #[must_use]
    pub fn span_id(&self) -> String {
        format!("{:016x}", self.span_id)
    }

    /// Whether the trace is sampled.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.flags & 1 == 1
    }

    /// Writes the context on a message. A header that is already there stays.
    pub fn write(&self, headers: &mut Headers) {
        if headers.contains(name::TRACEPARENT) {
            return;
        }
        headers.push(name::TRACEPARENT, self.traceparent());
        for (name, value) in self.carried() {
            headers.set(name, value.to_owned());
        }
    }

    /// What vendors have added, and what travels with the trace, each under its name.
    pub(crate) fn carried(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let carried = [
            (name::TRACESTATE, &self.state),
            (name::BAGGAGE, &self.baggage),
        ];
        let carried = carried.into_iter();
        carried.filter_map(|(name, value)| Some((name, value.as_deref()?)))
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim().split('-');
        let (version, trace, span, flags) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let version = from_hex(version, 2)?;
        let trace_id = from_hex(trace, 32).filter(|id| *id != 0)?;
        let span_id = from_hex(span, 16).filter(|id| *id != 0)?;
        let flags = from_hex(flags, 2)?;
        if version == 0xff || (version == 0 && parts.next().is_some()) {
            return None;
        }
        Some(Self {
            trace_id,
            span_id: u64::try_from(span_id).ok()?,
            flags: u8::try_from(flags).ok()?,
            state: None,
            baggage: None,
        })
    }

    /// The value of the header `traceparent`. Written by hand: every publish does it, and the
    /// formatting of the standard library takes ten times as long.
    pub(crate) fn traceparent(&self) -> String {
        let mut text = *b"00-................................-................-..";
        let [high, low] = [self.trace_id >> 64, self.trace_id].map(|half| half as u64);
        text[3..19].copy_from_slice(&hex(high));
        text[19..35].copy_from_slice(&hex(low));
        text[36..52].copy_from_slice(&hex(self.span_id));
        text[53..55].copy_from_slice(&hex(u64::from(self.flags))[14..]);
        str::from_utf8(&text)
            .expect("digits and hyphens are text")
            .to_owned()
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.traceparent())
    }
}

/// The digits of a number, the highest first; all of them at once.
fn hex(number: u64) -> [u8; 16] {
    const EACH: u128 = u128::from_ne_bytes([1; 16]);
    // A byte for each half byte: the halves move apart, then their halves.
    let mut digits = u128::from(number);
    digits = (digits | digits << 32) & 0x0000_0000_ffff_ffff_0000_0000_ffff_ffff;
    digits = (digits | digits << 16) & 0x0000_ffff_0000_ffff_0000_ffff_0000_ffff;
    digits = (digits | digits << 8) & 0x00ff_00ff_00ff_00ff_00ff_00ff_00ff_00ff;
    digits = (digits | digits << 4) & (EACH * 0x0f);
    // Those above 9 reach 16 with 6 more, and are letters.
    let letters = (digits + EACH * 6) >> 4 & EACH;
    let text = digits + EACH * u128::from(b'0') + letters * u128::from(b'a' - b'0' - 10);
    text.to_be_bytes()
}

/// A number of exactly so many lower-case hexadecimal digits, at most 32.
fn from_hex(text: &str, digits: usize) -> Option<u128> {
    if text.len() != digits {
        return None;
    }
    text.bytes().try_fold(0_u128, |number, byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(digit))
    })
}

fn new_span_id(rng: &Rng) -> u64 {
    rng.below(u64::MAX - 1) + 1
}

/// What ties a message to those that led to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Correlation {
    /// The same for everything that one original message led to.
    pub correlation_id: String,
    /// The message that is being handled.
    pub causation_id: MessageId,
}

impl Correlation {
    /// The correlation of what is sent while `incoming` is handled: its own correlation id, or its
    /// id where it carries none that can be trusted.
    #[must_use]
    pub fn following(incoming: &Incoming) -> Self {
        let correlation_id = incoming
            .headers
            .text(name::CORRELATION_ID)
            .filter(|id| is_correlation_id(id))
            .map_or_else(|| incoming.id.to_string(), Cow::into_owned);
        Self {
            correlation_id,
            causation_id: incoming.id.clone(),
        }
    }
}

/// Whether an id from outside can be passed on: 1 to 128 of `A-Z a-z 0-9 . _ : -`.
pub(crate) fn is_correlation_id(id: &str) -> bool {
    let allowed =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'-');
    (1..=128).contains(&id.len()) && id.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Origin, Place};
    use bytes::Bytes;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_trace_goes_on_with_a_new_span() {
        let headers: Headers = [(name::TRACEPARENT, PARENT), (name::TRACESTATE, "a=1")]
            .into_iter()
            .collect();
        let context = TraceContext::read(&headers).unwrap();
        assert_eq!(context.to_string(), PARENT);
        let child = context.child(&Rng::with_seed(1));
        assert_eq!(child.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_ne!(child.span_id(), context.span_id());
        let mut out = Headers::new();
        child.write(&mut out);
        assert_eq!(out.text(name::TRACESTATE).as_deref(), Some("a=1"));
        assert_eq!(TraceContext::read(&out), Some(child));
    }

    #[test]
    fn numbers_are_written_as_the_standard_library_writes_them() {
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        let some = (0..10_000).map(|_| random.u64(..) >> random.u8(..64));
        for number in some.chain([0, 9, 10, 15, 16, u64::MAX]) {
            let expected = format!("{number:016x}");
            assert_eq!(hex(number), expected.as_bytes(), "{number}, seed {seed}");
        }
    }

    #[test]
    fn malformed_contexts_are_ignored() {
        for text in [
            "",
            "00",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
        ] {
            assert_eq!(TraceContext::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn correlation_is_inherited_when_it_can_be_trusted() {
        let origin = Origin::new(
            "main".into(),
            Place::Memory {
                queue: "q".into(),
                offset: 1,
            },
        );
        let with = |id: &'static str| {
            let headers: Headers = [(name::MESSAGE_ID, "m"), (name::CORRELATION_ID, id)]
                .into_iter()
                .collect();
            let incoming = Incoming::new("t".into(), Bytes::new(), headers, origin.clone());
            Correlation::following(&incoming).correlation_id
        };
        assert_eq!(with("order-1"), "order-1");
        assert_eq!(with("two words"), "m");
        assert_eq!(with(""), "m");
    }
}
