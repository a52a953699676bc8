//! Batches: several messages in one call, each with its own outcome.

use std::ops::Deref;
use std::sync::Arc;

use crate::message::{Contract, Incoming, Outgoing};

use super::failure::Failure;
use super::outcome::{Fate, IntoOutcome, Outcome};
use super::scope::Scope;

/// Several messages of one subscription, in the order in which the broker handed them out.
///
/// A message that cannot be decoded is not in it: it went to the dead letters by itself.
#[derive(Debug)]
pub struct Batch<T> {
    items: Vec<BatchItem<T>>,
}

/// One message of a [`Batch`]; reads as its payload.
#[derive(Debug)]
pub struct BatchItem<T> {
    payload: T,
    incoming: Arc<Incoming>,
}

impl<T> BatchItem<T> {
    /// The payload.
    #[must_use]
    pub fn payload(&self) -> &T {
        &self.payload
    }

    /// The message that it came in.
    #[must_use]
    pub fn incoming(&self) -> &Arc<Incoming> {
        &self.incoming
    }
}

impl<T> Deref for BatchItem<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.payload
    }
}

impl<T> Batch<T> {
    /// A batch, also for a call in a unit test.
    #[must_use]
    pub fn new(items: impl IntoIterator<Item = (T, Arc<Incoming>)>) -> Self {
        let items = items
            .into_iter()
            .map(|(payload, incoming)| BatchItem { payload, incoming })
            .collect();
        Self { items }
    }

    /// How many messages there are; at least one when a handler is called.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The messages.
    pub fn iter(&self) -> std::slice::Iter<'_, BatchItem<T>> {
        self.items.iter()
    }

    /// The payloads.
    pub fn payloads(&self) -> impl Iterator<Item = &T> {
        self.items.iter().map(BatchItem::payload)
    }

    /// Every message was handled.
    pub fn all_done(&self) -> BatchOutcome {
        BatchOutcome {
            outcomes: vec![Outcome::done(); self.len()],
        }
    }

    /// Every message was handled but those at `indexes`, which get `outcome`. An index beyond the
    /// batch is ignored.
    pub fn all_done_except(
        &self,
        indexes: impl IntoIterator<Item = usize>,
        outcome: &Outcome,
    ) -> BatchOutcome {
        let mut all = self.all_done();
        for index in indexes {
            all.set(index, outcome.clone());
        }
        all
    }
}

impl<'a, T> IntoIterator for &'a Batch<T> {
    type Item = &'a BatchItem<T>;
    type IntoIter = std::slice::Iter<'a, BatchItem<T>>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<T> IntoIterator for Batch<T> {
    type Item = BatchItem<T>;
    type IntoIter = std::vec::IntoIter<BatchItem<T>>;

    fn into_iter(self) -> Self::IntoIter {
        self.items.into_iter()
    }
}

/// One outcome for each message of a batch.
#[derive(Clone, Debug)]
#[must_use]
pub struct BatchOutcome {
    outcomes: Vec<Outcome>,
}

impl BatchOutcome {
    /// Sets the outcome of the message at `index`. An index beyond the batch is ignored.
    pub fn set(&mut self, index: usize, outcome: Outcome) {
        if let Some(slot) = self.outcomes.get_mut(index) {
            *slot = outcome;
        }
    }
}

/// What a batch subscriber may return: [`BatchOutcome`], or whatever a subscriber of single messages
/// may return, which then goes for all messages of the batch alike.
#[diagnostic::on_unimplemented(
    message = "a batch subscriber cannot return `{Self}`",
    label = "expected `()`, `BatchOutcome`, a message, `Outcome`, or a `Result` of these",
    note = "to publish a value, derive `Message` for its type"
)]
pub trait IntoBatchOutcome: Sized {
    /// One outcome for each of `count` messages.
    #[doc(hidden)]
    fn into_outcomes(self, count: usize, scope: &Scope) -> Vec<Outcome>;

    /// The contracts of what may be published.
    #[doc(hidden)]
    fn publishes(_contracts: &mut Vec<&'static Contract>) {}
}

impl IntoBatchOutcome for BatchOutcome {
    fn into_outcomes(self, count: usize, _: &Scope) -> Vec<Outcome> {
        let mut outcomes = self.outcomes;
        let missing = || Outcome::retry("the batch handler gave no outcome for this message");
        outcomes.resize_with(count, missing);
        outcomes
    }
}

#[diagnostic::do_not_recommend]
impl<T: IntoOutcome> IntoBatchOutcome for T {
    fn into_outcomes(self, count: usize, scope: &Scope) -> Vec<Outcome> {
        for_all(&self.into_outcome(scope), count)
    }

    fn publishes(contracts: &mut Vec<&'static Contract>) {
        <T as IntoOutcome>::publishes(contracts);
    }
}

#[diagnostic::do_not_recommend]
impl<E: Failure> IntoBatchOutcome for Result<BatchOutcome, E> {
    fn into_outcomes(self, count: usize, scope: &Scope) -> Vec<Outcome> {
        match self {
            Ok(outcome) => outcome.into_outcomes(count, scope),
            Err(failure) => Err::<(), E>(failure).into_outcomes(count, scope),
        }
    }
}

/// The same outcome for all; what it publishes is published once, with the first message.
fn for_all(outcome: &Outcome, count: usize) -> Vec<Outcome> {
    let mut outcomes = vec![outcome.clone(); count];
    outcomes
        .iter_mut()
        .skip(1)
        .for_each(|other| other.outgoing.clear());
    outcomes
}

/// Runs a batch: decodes each message, calls the handler with those that can be read, and puts the
/// outcomes back in order. Messages sent through `Out` belong to the first that was handled.
#[doc(hidden)]
pub async fn run_batch<T, R, F>(
    incoming: Vec<Arc<Incoming>>,
    scope: &Scope,
    decode: impl Fn(&Arc<Incoming>) -> Result<T, Outcome>,
    call: impl FnOnce(Batch<T>) -> F,
) -> Vec<Outcome>
where
    R: IntoBatchOutcome,
    F: Future<Output = R>,
{
    let decoded: Vec<_> = incoming.iter().map(&decode).collect();
    let mut refused = Vec::with_capacity(decoded.len());
    let mut items = Vec::with_capacity(decoded.len());
    for (result, message) in decoded.into_iter().zip(incoming) {
        match result {
            Ok(payload) => {
                items.push((payload, message));
                refused.push(None);
            }
            Err(outcome) => refused.push(Some(outcome)),
        }
    }
    let count = items.len();
    let mut handled = if count == 0 {
        Vec::new()
    } else {
        call(Batch::new(items)).await.into_outcomes(count, scope)
    };
    if let Some(first) = handled
        .iter_mut()
        .find(|outcome| outcome.fate == Fate::Done)
    {
        let mut sent: Vec<Outgoing> = scope.take_sent();
        sent.append(&mut first.outgoing);
        first.outgoing = sent;
    }
    let mut handled = handled.into_iter();
    let missing = || Outcome::retry("the batch handler gave no outcome for this message");
    refused
        .into_iter()
        .map(|outcome| outcome.unwrap_or_else(|| handled.next().unwrap_or_else(missing)))
        .collect()
}
