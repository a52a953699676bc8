//! What `#[service_client]` calls. It is there only with the feature `http`, and its name says so to
//! those who have not switched it on.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

pub use crate::handling::BoxFuture;
pub use crate::http::{
    Answered, AsBody, BodyStream, CacheSettings, Call, CallError, CallOptions, CallSettings,
    ClientDescriptor, Empty, Events, Full, Json, Maybe, MethodDescriptor, Pieces, Problem, Raw,
    Read, ServiceClient, Verb, Wire,
};
use crate::message::Location;
pub use crate::resilience::Jitter;

/// How a client makes its calls: on the wire, or by an implementation in this process.
pub enum Via<O: ?Sized> {
    /// Over HTTP.
    Wire(Wire),
    /// By this.
    Local(Arc<O>),
}

impl<O: ?Sized> Via<O> {
    /// The same, with these options for what goes over the wire.
    #[must_use]
    pub fn with(&self, options: CallOptions) -> Self {
        match self {
            Self::Wire(wire) => Self::Wire(wire.with(options)),
            Self::Local(local) => Self::Local(Arc::clone(local)),
        }
    }
}

impl<O: ?Sized> Clone for Via<O> {
    fn clone(&self) -> Self {
        match self {
            Self::Wire(wire) => Self::Wire(wire.clone()),
            Self::Local(local) => Self::Local(Arc::clone(local)),
        }
    }
}

impl<O: ?Sized> fmt::Debug for Via<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wire(wire) => wire.fmt(f),
            Self::Local(_) => f.write_str("Local"),
        }
    }
}

/// A value that can stand in a path or a header.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot stand in a path or a header",
    label = "this type does not implement `Display`",
    note = "a value of the query only has to implement `Serialize`: mark the argument `#[query]`"
)]
pub trait Shown: fmt::Display {}

#[diagnostic::do_not_recommend]
impl<T: fmt::Display + ?Sized> Shown for T {}

/// A value that can stand in a query or a body.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be sent",
    label = "this type does not implement `Serialize`",
    note = "derive it: #[derive(Serialize)]"
)]
pub trait Written: Serialize {}

#[diagnostic::do_not_recommend]
impl<T: Serialize + ?Sized> Written for T {}

/// The error of a method.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the error of a call",
    label = "this type does not implement `From<CallError>`",
    note = "write `CallError`, or `#[from] CallError` in a variant of an error with `thiserror`"
)]
pub trait Fails<P>: From<CallError<P>> {}

#[diagnostic::do_not_recommend]
impl<T: From<CallError<P>>, P> Fails<P> for T {}

/// Adds a value to the path.
pub fn path<T: Shown + ?Sized>(call: Call, name: &str, value: &T) -> Call {
    call.value(name, &format_args!("{value}"))
}

/// Adds a header.
pub fn header<T: Shown + ?Sized>(call: Call, name: &'static str, value: &T) -> Call {
    call.header(name, format_args!("{value}"))
}

/// Adds a header, if there is one.
pub fn optional_header<T: Shown>(call: Call, name: &'static str, value: &Option<T>) -> Call {
    match value {
        Some(value) => header(call, name, value),
        None => call,
    }
}

/// Adds to the query.
pub fn query<T: Written + ?Sized>(call: Call, name: &str, value: &T) -> Call {
    call.query(name, value)
}

/// Adds the body, in JSON.
pub fn json<T: Written + ?Sized>(call: Call, value: &T) -> Call {
    call.json(value)
}

/// Adds the body, as the fields of a form.
pub fn form<T: Written + ?Sized>(call: Call, value: &T) -> Call {
    call.form(value)
}

/// Adds the body, as it is.
pub fn bytes<T: AsBody + ?Sized>(call: Call, value: &T) -> Call {
    call.bytes(value.as_body())
}

/// Adds the body, in pieces.
pub fn stream(call: Call, body: BodyStream) -> Call {
    call.stream(body)
}

/// Makes the call.
///
/// # Errors
/// [`CallError`], with the body that a refusal has.
pub async fn send<R: Read, P: Answered>(call: Call) -> Result<R::Output, CallError<P>> {
    call.send::<R, P>().await
}

/// The error of a call in the form of the method's own. Not a part of [`send`]: a bound of an `async`
/// function that does not hold is told twice.
pub fn failed<P, E: Fails<P>>(error: CallError<P>) -> E {
    E::from(error)
}

/// What came of the call of a method with a fallback.
#[derive(Debug)]
pub enum Came<T, P, E> {
    /// This, and it stays.
    Result(Result<T, E>),
    /// Nothing, and that is not the fault of the request: the fallback gives something.
    Nothing(CallError<P>),
}

/// Decides whether the fallback of the method at this place of the record is needed.
pub fn came<T, P, E: Fails<P>>(
    wire: &Wire,
    method: usize,
    result: Result<T, CallError<P>>,
) -> Came<T, P, E> {
    match result {
        Ok(value) => Came::Result(Ok(value)),
        Err(error) if error.is_client_error() => Came::Result(Err(E::from(error))),
        Err(error) => {
            wire.falls_back(method, &error);
            Came::Nothing(error)
        }
    }
}

/// What stands in for the record of a client with a mistake.
pub const fn broken<C: ServiceClient>() -> ClientDescriptor {
    const NOWHERE: Location = Location {
        file: "",
        line: 1,
        column: 1,
    };
    ClientDescriptor::new::<C>("", "", &[], NOWHERE)
}
