//! What stands in for an item with a mistake, so that the code around it still compiles and only the
//! mistake itself is reported. None of it ever runs.

use crate::handling::{Bind, Handler};
use crate::message::{CodecError, Contract, Location};
use crate::messaging::SubscriberOptions;
use crate::registry::{ServiceIdentity, Source, SubscriberDescriptor};

const NOWHERE: Location = Location {
    file: "",
    line: 1,
    column: 1,
};

const NOBODY: &ServiceIdentity = &ServiceIdentity::new("", "", "", "", false, NOWHERE);

/// The contract of a message with a mistake.
pub const BROKEN_CONTRACT: &Contract = &Contract::new("", "", NOWHERE);

/// The record of a subscriber with a mistake.
pub const BROKEN_SUBSCRIBER: &SubscriberDescriptor = &SubscriberDescriptor::new(
    "",
    "",
    NOBODY,
    Source::Contracts(&[]),
    SubscriberOptions::UNSET,
    nothing,
    NOWHERE,
);

fn nothing(_: &mut Bind<'_>) -> Option<Handler> {
    None
}

/// The error of a message with a mistake.
#[must_use]
pub fn broken_codec() -> CodecError {
    CodecError::new("", "")
}
