//! A request as an instance got it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};
use serde::de::DeserializeOwned;

use super::route::Named;

/// A request that an [`Upstream`](super::Upstream) got. Cheap to clone.
#[derive(Clone)]
pub struct UpstreamRequest(pub(super) Arc<Seen>);

pub(super) struct Seen {
    pub(super) instance: Arc<str>,
    pub(super) at: Duration,
    pub(super) method: Method,
    pub(super) target: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) named: Named,
}

impl UpstreamRequest {
    /// The address of the instance that got it.
    #[must_use]
    pub fn instance(&self) -> &str {
        &self.0.instance
    }

    /// When, in the time of the app's [timeline](crate::testing::TestApp::timeline).
    #[must_use]
    pub fn at(&self) -> Duration {
        self.0.at
    }

    /// The method.
    #[must_use]
    pub fn method(&self) -> &Method {
        &self.0.method
    }

    /// The path as it was sent, without the query.
    #[must_use]
    pub fn path(&self) -> &str {
        let target = &self.0.target;
        target.split_once('?').map_or(target, |(path, _)| path)
    }

    /// What stands in the path where the route that it was answered by says `{name}`, decoded.
    #[must_use]
    pub fn segment(&self, name: &str) -> Option<&str> {
        let mut named = self.0.named.iter();
        let found = named.find(|(known, _)| known == name);
        found.map(|(_, text)| text.as_str())
    }

    /// The first value of this name in the query, decoded.
    #[must_use]
    pub fn query(&self, name: &str) -> Option<String> {
        let (_, query) = self.0.target.split_once('?')?;
        let pairs = query.split('&');
        let mut pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let found = pairs.find(|(key, _)| decoded(key, true) == name);
        found.map(|(_, value)| decoded(value, true))
    }

    /// Path and query as they were sent.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.0.target
    }

    /// The headers.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.0.headers
    }

    /// The header of this name, if it is there and a text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.0.headers.get(name)?.to_str().ok()
    }

    /// Which attempt of its call it says it is, from 1.
    #[must_use]
    pub fn attempt(&self) -> Option<u32> {
        self.header("x-attempt")?.parse().ok()
    }

    /// How long it says that its caller will still wait.
    #[must_use]
    pub fn time_left(&self) -> Option<Duration> {
        let millis = self.header("x-timeout-ms")?.parse().ok()?;
        Some(Duration::from_millis(millis))
    }

    /// The body.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.0.body
    }

    /// The body, read as JSON.
    ///
    /// # Panics
    /// If it cannot be read as a `T`.
    #[must_use]
    #[track_caller]
    pub fn json<T: DeserializeOwned>(&self) -> T {
        match serde_json::from_slice(&self.0.body) {
            Ok(value) => value,
            Err(error) => panic!("the body of {self} cannot be read: {error}"),
        }
    }
}

impl fmt::Display for UpstreamRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0.method, self.0.target)
    }
}

impl fmt::Debug for UpstreamRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamRequest")
            .field("instance", &self.0.instance)
            .field("at", &self.0.at)
            .field("method", &self.0.method)
            .field("target", &self.0.target)
            .field("headers", &self.0.headers)
            .field("body", &self.0.body)
            .finish_non_exhaustive()
    }
}

/// Without percent-encoding, and in a query without plus signs for spaces.
pub(super) fn decoded(text: &str, is_query: bool) -> String {
    let digit = |byte: Option<&u8>| (*byte? as char).to_digit(16);
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let pair = digit(bytes.get(at + 1)).zip(digit(bytes.get(at + 2)));
        let (byte, length) = match (byte, pair) {
            (b'%', Some((high, low))) => ((high * 16 + low) as u8, 3),
            (b'+', _) if is_query => (b' ', 1),
            (byte, _) => (byte, 1),
        };
        plain.push(byte);
        at += length;
    }
    String::from_utf8_lossy(&plain).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_encoded_is_decoded() {
        for (text, plain) in [
            ("a%20b", "a b"),
            ("%C3%A4+", "ä+"),
            ("100%", "100%"),
            ("%zz%4", "%zz%4"),
            ("%€", "%€"),
        ] {
            assert_eq!(decoded(text, false), plain);
        }
        assert_eq!(decoded("a+b%2B", true), "a b+");
    }
}
