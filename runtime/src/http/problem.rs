//! Problem documents: errors of HTTP services in the form of RFC 9457.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};

/// A problem document, as RFC 9457 describes it: what a service says about its error.
///
/// Every member may be missing; of one that has the wrong type it is as if it were.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Problem {
    /// What kind of problem it is, as a URI: what a program can decide by.
    pub kind: Option<String>,
    /// The kind in a few words.
    pub title: Option<String>,
    /// The status, as the service repeats it.
    pub status: Option<u16>,
    /// What happened this time.
    pub detail: Option<String>,
    /// Which occurrence it was, as a URI.
    pub instance: Option<String>,
    extensions: BTreeMap<String, serde_json::Value>,
}

impl Problem {
    /// A further member that the service added, if it is there and of this type.
    #[must_use]
    pub fn extension<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        T::deserialize(self.extensions.get(name)?).ok()
    }
}

impl<'de> Deserialize<'de> for Problem {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut members = BTreeMap::<String, serde_json::Value>::deserialize(deserializer)?;
        // Any object would be a problem that says nothing.
        let known = ["type", "title", "status", "detail", "instance"];
        if !known.iter().any(|name| members.contains_key(*name)) {
            return Err(D::Error::custom("this is no problem document"));
        }
        let mut text = |name| match members.remove(name) {
            Some(serde_json::Value::String(text)) => Some(text),
            _ => None,
        };
        let (kind, title) = (text("type"), text("title"));
        let (detail, instance) = (text("detail"), text("instance"));
        let status = members.remove("status").and_then(|status| status.as_u64());
        Ok(Self {
            kind,
            title,
            status: status.and_then(|status| u16::try_from(status).ok()),
            detail,
            instance,
            extensions: members,
        })
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.title, &self.detail, &self.kind) {
            (Some(title), Some(detail), _) => write!(f, "{title}: {detail}"),
            (Some(text), None, _) | (None, Some(text), _) | (None, None, Some(text)) => {
                f.write_str(text)
            }
            (None, None, None) => f.write_str("a problem without a text"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_read_as_far_as_they_make_sense() {
        let text = r#"{"type": "https://shop/out-of-stock", "title": "Out of stock", "status": 409,
            "detail": "3 left", "instance": 7, "left": 3}"#;
        let problem: Problem = serde_json::from_str(text).unwrap();
        assert_eq!(problem.kind.as_deref(), Some("https://shop/out-of-stock"));
        assert_eq!((problem.status, &problem.instance), (Some(409), &None));
        assert_eq!(problem.extension::<u8>("left"), Some(3));
        assert_eq!(problem.extension::<String>("left"), None);
        assert_eq!(problem.to_string(), "Out of stock: 3 left");
        assert!(serde_json::from_str::<Problem>(r#"{"error": "x"}"#).is_err());
        assert!(serde_json::from_str::<Problem>("[]").is_err());
    }
}
