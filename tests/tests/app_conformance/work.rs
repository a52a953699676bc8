//! The messages that most cases send: work to do, and what was made of it.

use interline::prelude::*;

/// Something to do.
#[derive(Clone, Debug, PartialEq, Message, Serialize, Deserialize)]
#[message(topic = "work", key = key, id = id)]
pub(crate) struct Work {
    /// Its identity.
    pub(crate) id: String,
    /// Its key.
    pub(crate) key: String,
    /// What its handler is to do with it.
    pub(crate) act: String,
}

impl Work {
    /// Work whose key is its id.
    pub(crate) fn new(id: &str, act: &str) -> Self {
        Self::of("", id, act)
    }

    /// Work of a key.
    pub(crate) fn of(key: &str, id: &str, act: &str) -> Self {
        Self {
            id: id.to_owned(),
            key: if key.is_empty() { id } else { key }.to_owned(),
            act: act.to_owned(),
        }
    }
}

/// What was made of it.
#[derive(Clone, Debug, PartialEq, Message, Serialize, Deserialize)]
#[message(topic = "made", key = of, subscribers = optional)]
pub(crate) struct Made {
    /// Of which work.
    pub(crate) of: String,
    /// What.
    pub(crate) what: String,
}

impl Made {
    pub(crate) fn new(of: &str, what: &str) -> Self {
        Self {
            of: of.to_owned(),
            what: what.to_owned(),
        }
    }
}
