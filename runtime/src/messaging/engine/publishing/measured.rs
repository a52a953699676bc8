//! What is recorded of each publish.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::message::Outgoing;
use crate::observability::metrics::{self, MetricsSink, Series};

use super::DYNAMIC_DESTINATION;

/// What a publish is recorded under, whatever middleware makes of it.
pub(super) struct Measures {
    pub(super) broker: Option<Cow<'static, str>>,
    pub(super) topic: Cow<'static, str>,
    destination: &'static str,
}

impl Measures {
    pub(super) fn of(outgoing: &Outgoing) -> Self {
        Self {
            broker: outgoing.broker.clone(),
            topic: outgoing.topic.clone(),
            destination: outgoing.template.unwrap_or(DYNAMIC_DESTINATION),
        }
    }
}

/// The series of one broker.
///
/// They are kept by destination and outcome, which are texts of the program: so there is an end to
/// them, and their addresses tell them apart.
#[derive(Default)]
pub(super) struct Measured(Mutex<HashMap<(usize, usize), Pair, BuildHasherDefault<AddressHasher>>>);

/// The series of one broker, destination and outcome.
struct Pair {
    sent: Series,
    duration: Series,
}

impl Measured {
    pub(super) fn record(
        &self,
        sink: &dyn MetricsSink,
        broker: &Arc<str>,
        publish: &Measures,
        took: Duration,
        outcome: &'static str,
    ) {
        let destination = publish.destination;
        let mut series = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let pair = series
            .entry((destination.as_ptr().addr(), outcome.as_ptr().addr()))
            .or_insert_with(|| Pair::of(sink, broker, destination, outcome));
        pair.sent.record(1.0);
        pair.duration.record(took.as_secs_f64());
    }
}

impl Pair {
    fn of(
        sink: &dyn MetricsSink,
        broker: &Arc<str>,
        destination: &'static str,
        outcome: &'static str,
    ) -> Self {
        let labels = vec![Arc::clone(broker), destination.into(), outcome.into()];
        Self {
            sent: Series::of(Some(sink), metrics::SENT, labels.clone()),
            duration: Series::of(Some(sink), metrics::PUBLISH_DURATION, labels),
        }
    }
}

/// Spreads addresses of texts in the program, which nobody can choose to collide.
#[derive(Default)]
pub(super) struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_usize(usize::from(*byte));
        }
    }

    fn write_usize(&mut self, address: usize) {
        self.0 = (self.0.rotate_left(5) ^ address as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }
}
