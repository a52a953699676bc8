//! `[brokers.NAME]` of kind `redis-pubsub`.

use crate::config::{Faults, Section};
use crate::redis;

use super::super::settings::Settings as Shared;

const BUFFER_DEFAULT: usize = 1_000;

/// What is dropped when a message arrives and the queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Overflow {
    Newest,
    Oldest,
}

/// How channels are used, beside the keys of [`redis::Settings`].
///
/// | key | default | |
/// |---|---|---|
/// | `buffer` | 1 000 | messages of a subscription that wait for its handlers |
/// | `overflow` | `drop_oldest` | what goes when one more arrives: `drop_oldest` or `drop_newest` |
/// | `headers` | `head` | `head`: in lines before the body; `none`: the body alone is sent |
/// | `on_terminal` | `fail` | wrong credentials and the like at start: give up, or `retry` |
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub(super) buffer: usize,
    pub(super) overflow: Overflow,
    /// Whether headers go before the body.
    pub(super) heads: bool,
}

impl Settings {
    /// Reads the section; what is wrong goes to `faults`.
    pub(super) fn read(section: &Section<'_>, faults: &mut Faults) -> (Shared, Self) {
        let server = redis::Settings::read(section, faults);
        let retries_terminal =
            section.choice("on_terminal", &["fail", "retry"], faults) == Some("retry");
        let overflows = ["drop_oldest", "drop_newest"];
        let settings = Self {
            buffer: section
                .integer::<u32>("buffer", 1..=1_000_000, faults)
                .and_then(|count| usize::try_from(count).ok())
                .unwrap_or(BUFFER_DEFAULT),
            overflow: match section.choice("overflow", &overflows, faults) {
                Some("drop_newest") => Overflow::Newest,
                _ => Overflow::Oldest,
            },
            heads: section.choice("headers", &["head", "none"], faults) != Some("none"),
        };
        (Shared::of_channels(server, retries_terminal), settings)
    }
}
