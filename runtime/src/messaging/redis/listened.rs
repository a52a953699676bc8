//! Which streams somebody is known to listen to, so that not every publish has to ask.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use super::core::lock;

/// How long a stream is taken to be listened to after it was asked for.
const FRESH: Duration = Duration::from_secs(1);
/// Most streams that are remembered.
const STREAMS_MAX: usize = 10_000;

/// Streams that had a group when they were last asked for.
#[derive(Default)]
pub(super) struct Listened(Mutex<HashMap<Box<str>, Instant>>);

impl Listened {
    pub(super) fn is_fresh(&self, stream: &str) -> bool {
        lock(&self.0)
            .get(stream)
            .is_some_and(|asked| asked.elapsed() < FRESH)
    }

    pub(super) fn note(&self, stream: &str) {
        let mut streams = lock(&self.0);
        if streams.len() >= STREAMS_MAX {
            streams.clear();
        }
        streams.insert(stream.into(), Instant::now());
    }

    /// Nothing is known of another connection's server.
    pub(super) fn forget(&self) {
        lock(&self.0).clear();
    }
}
