//! What is on a broker, compared with what has to be.

use super::TopologyPart;

/// How a broker differs from a topology.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Inspection {
    /// Parts that are not there.
    pub missing: Vec<TopologyPart>,
    /// Parts that are there and differ.
    pub different: Vec<Difference>,
    /// What an earlier form of the service made and nothing declares any more: it goes on collecting
    /// messages until somebody removes it.
    pub leftover: Vec<Leftover>,
    /// What could not be looked at, and what it would take: `queues that are no longer declared: set
    /// management_url`.
    pub unseen: Vec<String>,
}

impl Inspection {
    /// Nothing differs, as far as could be seen.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.missing.is_empty() && self.different.is_empty() && self.leftover.is_empty()
    }
}

/// A part that is on the broker and is not what was declared.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Difference {
    /// The part as it was declared.
    pub part: TopologyPart,
    /// What differs, readable: `x-queue-type is classic, declared is quorum`.
    pub what: String,
}

impl Difference {
    /// `part` differs in `what`.
    #[must_use]
    pub fn new(part: TopologyPart, what: impl Into<String>) -> Self {
        Self {
            part,
            what: what.into(),
        }
    }
}

/// Something that we made and no longer declare.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Leftover {
    /// What it is, in the words of [`TopologyPart::kind`].
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// How many messages it holds, where it holds messages and the number is known.
    pub depth: Option<u64>,
}

impl Leftover {
    /// A leftover of this kind and name, its depth unknown.
    #[must_use]
    pub fn new(kind: &'static str, name: impl Into<String>) -> Self {
        Self {
            kind,
            name: name.into(),
            depth: None,
        }
    }

    /// Holding so many messages.
    #[must_use]
    pub const fn depth(mut self, depth: u64) -> Self {
        self.depth = Some(depth);
        self
    }
}

/// A topology in a form that the broker's own tools take.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Export {
    /// What it is and what takes it: `RabbitMQ definitions: rabbitmqctl import_definitions FILE`.
    pub format: &'static str,
    /// How the name of a file for it ends: `json`, `sh`.
    pub extension: &'static str,
    /// The text.
    pub text: String,
}

impl Export {
    /// A text in a format, for a file with this extension.
    #[must_use]
    pub fn new(format: &'static str, extension: &'static str, text: impl Into<String>) -> Self {
        Self {
            format,
            extension,
            text: text.into(),
        }
    }
}
