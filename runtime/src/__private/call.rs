//! What `#[subscriber]` calls: the arguments of a handler, its call and its result.
//!
//! Every bound on a type of the user's is stated once, as the bound of an associated type; generated
//! bodies then go through functions that are generic over the implementing type. So a missing bound
//! is one error, on the user's own tokens.

use std::fmt;
use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use crate::handling::{
    Batch, Bind, Extract, Fate, IntoBatchOutcome, IntoOutcome, Outcome, Payload, Raw, Rejection,
    Scope, foreign, header, message, optional_header, optional_segment, run_batch, segment,
};
use crate::message::{AnsweredBy, Contract, Incoming};

/// The payload of a handler of messages with a contract.
pub trait TakesPayload {
    /// Its type.
    type Payload: Payload;
}

/// The contracts of what a handler takes.
#[must_use]
pub const fn contracts<H: TakesPayload>() -> &'static [&'static Contract] {
    H::Payload::CONTRACTS
}

/// Reads the payload.
///
/// # Errors
/// The outcome of a message that cannot be read.
pub fn read<H: TakesPayload>(incoming: &Incoming, scope: &Scope) -> Result<H::Payload, Outcome> {
    message(incoming, scope)
}

/// A type that serde reads.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be read from a message",
    label = "this type does not implement `Deserialize`",
    note = "derive it: #[derive(Deserialize)]",
    note = "to take the bytes as they are, write `Raw`"
)]
pub trait Readable: Sized {
    /// Reads it.
    ///
    /// # Errors
    /// The outcome of a message that cannot be read.
    fn read(incoming: &Incoming, scope: &Scope) -> Result<Self, Outcome>;
}

#[diagnostic::do_not_recommend]
impl<T: DeserializeOwned> Readable for T {
    fn read(incoming: &Incoming, scope: &Scope) -> Result<Self, Outcome> {
        foreign(incoming, scope)
    }
}

/// The payload of a handler of messages of others.
pub trait TakesForeign {
    /// Its type.
    type Payload: Readable;
}

/// Reads the payload of a message of others.
///
/// # Errors
/// The outcome of a message that cannot be read.
pub fn read_foreign<H: TakesForeign>(
    incoming: &Incoming,
    scope: &Scope,
) -> Result<H::Payload, Outcome> {
    H::Payload::read(incoming, scope)
}

/// The message as it is.
///
/// # Errors
/// None; it has the shape of the others.
pub fn read_raw(incoming: &Arc<Incoming>) -> Result<Raw, Outcome> {
    Ok(Raw::new(Arc::clone(incoming)))
}

/// The argument number `N` of a handler, beside its payload.
pub trait Takes<const N: usize> {
    /// Its type.
    type Argument: Extract;
}

type Extracting<T> = dyn Fn(&Arc<Incoming>, &Scope) -> Result<T, Outcome> + Send + Sync;

/// An argument that has what it needs.
pub struct Argument<T>(Arc<Extracting<T>>);

impl<T> Argument<T> {
    /// The same once more; inherent, because the user's code may lack the prelude.
    #[must_use]
    pub fn share(&self) -> Self {
        Self(Arc::clone(&self.0))
    }

    /// Takes it for one message.
    ///
    /// # Errors
    /// The outcome of a message that lacks it.
    pub fn take(&self, incoming: &Arc<Incoming>, scope: &Scope) -> Result<T, Outcome> {
        (self.0)(incoming, scope)
    }
}

impl<T> fmt::Debug for Argument<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Argument")
    }
}

/// Resolves an argument before anything runs.
pub fn argument<H: Takes<N>, const N: usize>(bind: &mut Bind<'_>) -> Option<Argument<H::Argument>> {
    let prepared = H::Argument::prepare(bind)?;
    Some(Argument(Arc::new(move |incoming, scope| {
        H::Argument::extract(&prepared, incoming, scope).map_err(Outcome::from)
    })))
}

/// A type that can be read from the text of a header or of a topic's segment.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be read from the text of a header or segment",
    label = "this type does not implement `FromStr` with an error that implements `Display`",
    note = "implement `std::str::FromStr` for it, or take a `String`"
)]
pub trait FromText: Sized + Send {
    /// Reads a header.
    ///
    /// # Errors
    /// [`Rejection`] if it is missing or cannot be read.
    fn header(incoming: &Incoming, name: &'static str) -> Result<Self, Rejection>;

    /// Reads a header, if it is there.
    ///
    /// # Errors
    /// [`Rejection`] if it cannot be read.
    fn optional_header(incoming: &Incoming, name: &'static str) -> Result<Option<Self>, Rejection>;

    /// Reads a segment of the topic.
    ///
    /// # Errors
    /// [`Rejection`] if it is missing or cannot be read.
    fn segment(incoming: &Incoming, scope: &Scope, name: &'static str) -> Result<Self, Rejection>;

    /// Reads a segment of the topic, if it is there.
    ///
    /// # Errors
    /// [`Rejection`] if it cannot be read.
    fn optional_segment(
        incoming: &Incoming,
        scope: &Scope,
        name: &'static str,
    ) -> Result<Option<Self>, Rejection>;
}

#[diagnostic::do_not_recommend]
impl<T> FromText for T
where
    T: FromStr + Send,
    T::Err: Display,
{
    fn header(incoming: &Incoming, name: &'static str) -> Result<Self, Rejection> {
        header(incoming, name)
    }

    fn optional_header(incoming: &Incoming, name: &'static str) -> Result<Option<Self>, Rejection> {
        optional_header(incoming, name)
    }

    fn segment(incoming: &Incoming, scope: &Scope, name: &'static str) -> Result<Self, Rejection> {
        segment(incoming, scope, name)
    }

    fn optional_segment(
        incoming: &Incoming,
        scope: &Scope,
        name: &'static str,
    ) -> Result<Option<Self>, Rejection> {
        optional_segment(incoming, scope, name)
    }
}

/// The argument number `N` of a handler, which is a text of the message.
pub trait TakesText<const N: usize> {
    /// The type that it is read as.
    type Value: FromText;
}

/// Reads a header.
///
/// # Errors
/// The outcome of a message that lacks it.
pub fn take_header<H: TakesText<N>, const N: usize>(
    incoming: &Incoming,
    name: &'static str,
) -> Result<H::Value, Outcome> {
    H::Value::header(incoming, name).map_err(Outcome::from)
}

/// Reads a header, if it is there.
///
/// # Errors
/// The outcome of a message whose header cannot be read.
pub fn take_optional_header<H: TakesText<N>, const N: usize>(
    incoming: &Incoming,
    name: &'static str,
) -> Result<Option<H::Value>, Outcome> {
    H::Value::optional_header(incoming, name).map_err(Outcome::from)
}

/// Reads a segment of the topic.
///
/// # Errors
/// The outcome of a message that lacks it.
pub fn take_segment<H: TakesText<N>, const N: usize>(
    incoming: &Incoming,
    scope: &Scope,
    name: &'static str,
) -> Result<H::Value, Outcome> {
    H::Value::segment(incoming, scope, name).map_err(Outcome::from)
}

/// Reads a segment of the topic, if it is there.
///
/// # Errors
/// The outcome of a message whose segment cannot be read.
pub fn take_optional_segment<H: TakesText<N>, const N: usize>(
    incoming: &Incoming,
    scope: &Scope,
    name: &'static str,
) -> Result<Option<H::Value>, Outcome> {
    H::Value::optional_segment(incoming, scope, name).map_err(Outcome::from)
}

/// What a handler returns.
pub trait Returns {
    /// Its type.
    type Output: IntoOutcome;
}

/// The contracts of what a handler may publish by returning it.
pub fn publishes<H: Returns>(contracts: &mut Vec<&'static Contract>) {
    <H::Output as IntoOutcome>::publishes(contracts);
}

/// Whether a handler answers the one who asked.
#[must_use]
pub fn replies<H: Returns>() -> bool {
    <H::Output as IntoOutcome>::replies()
}

/// A handler that answers with `R`.
pub trait Answers<R> {
    /// The message that it answers.
    type Asked: AnsweredBy<R>;
}

/// Turns what a handler returned into an outcome, with what it sent through `Out`.
#[must_use]
pub fn finish<H: Returns>(returned: H::Output, scope: &Scope) -> Outcome {
    let mut outcome = returned.into_outcome(scope);
    if outcome.fate == Fate::Done {
        let mut sent = scope.take_sent();
        if !sent.is_empty() {
            sent.append(&mut outcome.outgoing);
            outcome.outgoing = sent;
        }
    }
    outcome
}

/// What a handler of batches returns.
pub trait ReturnsBatch {
    /// Its type.
    type Output: IntoBatchOutcome;
}

/// The contracts of what a handler of batches may publish by returning it.
pub fn batch_publishes<H: ReturnsBatch>(contracts: &mut Vec<&'static Contract>) {
    <H::Output as IntoBatchOutcome>::publishes(contracts);
}

/// The first message of a batch.
#[must_use]
pub fn first(incoming: &[Arc<Incoming>]) -> Option<Arc<Incoming>> {
    incoming.first().cloned()
}

/// The same outcome for every message of a batch.
#[must_use]
pub fn for_each(outcome: Outcome, count: usize) -> Vec<Outcome> {
    vec![outcome; count]
}

/// Runs a handler of batches.
pub async fn batch<H, T, F>(
    incoming: Vec<Arc<Incoming>>,
    scope: &Scope,
    decode: impl Fn(&Arc<Incoming>) -> Result<T, Outcome>,
    call: impl FnOnce(Batch<T>) -> F,
) -> Vec<Outcome>
where
    H: ReturnsBatch,
    F: Future<Output = H::Output>,
{
    run_batch(incoming, scope, decode, call).await
}
