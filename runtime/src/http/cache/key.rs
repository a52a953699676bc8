//! What an answer is kept under.

use std::fmt;
use std::sync::Arc;

use http::Method;
use http::header::HeaderMap;

use crate::message::headers::name;

/// What says how to use the cache, not what for; and what is different in each call.
const APART: &[&str] = &[
    "cache-control",
    "pragma",
    name::TRACEPARENT,
    name::TRACESTATE,
    name::CORRELATION_ID,
    name::CAUSATION_ID,
];

/// Everything that tells one answer from another: method, target, and each header that the caller
/// gives, of which any may be an identity. Never printed.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(in super::super) struct Key(Arc<[u8]>);

impl Key {
    /// Of a request with these headers: what the caller gives, and what it passes on of the one that it
    /// handles, baggage say, which can hold a tenant.
    /// Whether 404 is an answer belongs to it: who takes it for an error must not find it here.
    pub(in super::super) fn new(
        method: &Method,
        target: &str,
        headers: &[&HeaderMap],
        not_found_is_fine: bool,
    ) -> Self {
        let mut pairs: Vec<(&str, &[u8])> = Vec::new();
        for (name, value) in headers.iter().copied().flatten() {
            if !APART.contains(&name.as_str()) {
                pairs.push((name.as_str(), value.as_bytes()));
            }
        }
        pairs.sort_unstable();
        let mut bytes = Vec::with_capacity(target.len() + 64);
        bytes.extend_from_slice(method.as_str().as_bytes());
        // No part of a request holds a line feed.
        bytes.push(b'\n');
        bytes.push(if not_found_is_fine { b'?' } else { b'!' });
        bytes.extend_from_slice(target.as_bytes());
        for (name, value) in pairs {
            bytes.push(b'\n');
            bytes.extend_from_slice(name.as_bytes());
            bytes.push(b':');
            bytes.extend_from_slice(value);
        }
        Self(bytes.into())
    }

    pub(super) fn bytes(&self) -> usize {
        self.0.len()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(target: &str, headers: &[(&'static str, &'static str)]) -> Key {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        Key::new(&Method::GET, target, &[&map], false)
    }

    #[test]
    fn everything_that_the_caller_says_tells_answers_apart() {
        let same = key("/a", &[("authorization", "x"), ("cookie", "y")]);
        assert_eq!(same, key("/a", &[("cookie", "y"), ("authorization", "x")]));
        let with_use = [
            ("cookie", "y"),
            ("cache-control", "no-cache"),
            ("authorization", "x"),
        ];
        assert_eq!(same, key("/a", &with_use));
        for other in [
            key("/a", &[]),
            key("/a?b", &[("authorization", "x"), ("cookie", "y")]),
            key("/a", &[("authorization", "z"), ("cookie", "y")]),
            key(
                "/a",
                &[("authorization", "x"), ("cookie", "y"), ("x-tenant", "t")],
            ),
        ] {
            assert_ne!(same, other);
        }
        let (method, none) = (Method::GET, HeaderMap::new());
        let [strict, lenient] = [false, true].map(|fine| Key::new(&method, "/a", &[&none], fine));
        assert_ne!(strict, lenient);
        assert!(!format!("{same:?}").contains('x'));
    }
}
