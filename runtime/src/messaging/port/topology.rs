//! What has to exist on a broker, as data.

use std::sync::Arc;

use crate::messaging::options::TopologyMode;

/// What has to exist on a broker, as data: it can be printed, compared and applied.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Topology {
    /// The parts, in the order in which they are made.
    pub parts: Vec<TopologyPart>,
}

impl Topology {
    /// These parts, in the order in which they are made.
    #[must_use]
    pub fn new(parts: Vec<TopologyPart>) -> Self {
        Self { parts }
    }
}

/// One part of a topology.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct TopologyPart {
    /// What it is: `exchange`, `queue`, `binding`.
    pub kind: &'static str,
    /// Its name; for a binding `queue <- exchange (key)`.
    pub name: String,
    /// Its arguments, readable.
    pub arguments: Vec<(String, String)>,
    /// What is done about it.
    pub mode: TopologyMode,
    /// The subscription it belongs to; `None` if it serves several.
    pub subscription: Option<Arc<str>>,
}

impl TopologyPart {
    /// A part with its kind, name and treatment.
    #[must_use]
    pub fn new(kind: &'static str, name: impl Into<String>, mode: TopologyMode) -> Self {
        Self {
            kind,
            name: name.into(),
            arguments: Vec::new(),
            mode,
            subscription: None,
        }
    }
}
