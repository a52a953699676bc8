//! What is done about queues, exchanges and topics.

/// What is done about queues, exchanges and topics at start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum TopologyMode {
    /// Make what is missing. A difference to what is there is an error that shows it.
    #[default]
    Apply,
    /// Touch and check nothing.
    Off,
    /// Make nothing; what is missing is an error. Needs no permission to configure.
    Verify,
}
