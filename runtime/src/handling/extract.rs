//! Extractors: the arguments of a handler beside its payload.

use std::any::type_name;
use std::fmt;
use std::ops::Deref;
use std::str::FromStr;
use std::sync::Arc;
use std::time::SystemTime;

use crate::message::{Headers, Incoming, MessageId, Origin, headers::name, parse_time};

use super::bind::{Bind, short_type_name};
use super::outcome::{Failed, Fate, Outcome, Reason};
use super::publisher::Publisher;
use super::scope::{Cancel, Scope};

/// A type that a handler can take as an argument.
///
/// What it needs is resolved once, at start ([`prepare`](Extract::prepare)); per message it only
/// reads what is there ([`extract`](Extract::extract)). Implement it for a type of your own to
/// derive an argument from the message, such as a tenant.
///
/// ```
/// use std::sync::Arc;
/// use interline::handling::{Bind, Extract, Rejection, Scope};
/// use interline::message::Incoming;
///
/// struct Tenant(String);
///
/// impl Extract for Tenant {
///     type Prepared = ();
///     fn prepare(_: &mut Bind<'_>) -> Option<()> { Some(()) }
///     fn extract(_: &(), incoming: &Arc<Incoming>, _: &Scope) -> Result<Self, Rejection> {
///         let tenant = incoming.headers.text("x-tenant");
///         tenant.map(|tenant| Tenant(tenant.into_owned()))
///             .ok_or_else(|| Rejection::dead_letter("the header `x-tenant` is missing"))
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "a subscriber cannot take `{Self}` as an argument",
    label = "this type is not an extractor",
    note = "the payload comes first; after it: State<..>, Publisher, Out<..>, Meta, Headers, Cancel, or #[header(\"..\")] and #[segment] values"
)]
pub trait Extract: Sized + Send + 'static {
    /// What is resolved once, before anything runs.
    type Prepared: Clone + Send + Sync + 'static;

    /// Resolves it; `None` after noting in `bind` what is missing.
    fn prepare(bind: &mut Bind<'_>) -> Option<Self::Prepared>;

    /// Takes the value for one message.
    ///
    /// # Errors
    /// [`Rejection`] says what becomes of the message.
    fn extract(
        prepared: &Self::Prepared,
        incoming: &Arc<Incoming>,
        scope: &Scope,
    ) -> Result<Self, Rejection>;
}

/// An argument could not be taken from the message; says what becomes of it.
#[derive(Clone, Debug)]
pub struct Rejection {
    fate: Fate,
    reason: Reason,
    text: String,
}

impl Rejection {
    /// The message can never be handled: it goes to the dead letters.
    #[must_use]
    pub fn dead_letter(text: impl Into<String>) -> Self {
        Self {
            fate: Fate::DeadLetter,
            reason: Reason::Decode,
            text: text.into(),
        }
    }

    /// The message may be handled later.
    #[must_use]
    pub fn retry(text: impl Into<String>) -> Self {
        Self {
            fate: Fate::Retry { after: None },
            reason: Reason::Error,
            text: text.into(),
        }
    }

    /// The sender may not do this: the message goes to the dead letters.
    #[must_use]
    pub fn unauthorized(text: impl Into<String>) -> Self {
        Self {
            fate: Fate::DeadLetter,
            reason: Reason::Unauthorized,
            text: text.into(),
        }
    }
}

impl From<Rejection> for Outcome {
    fn from(rejection: Rejection) -> Self {
        let failed = Failed::new(rejection.reason, "Rejection", rejection.text);
        Self::failed(rejection.fate, failed)
    }
}

/// A value of the app that handlers share: `App::state(value)` gives it, `State<T>` takes it.
pub struct State<S>(Arc<S>);

impl<S> State<S> {
    /// A state for a call in a unit test.
    #[must_use]
    pub fn new(value: S) -> Self {
        Self(Arc::new(value))
    }
}

impl<S> Clone for State<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S> Deref for State<S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.0
    }
}

impl<S: fmt::Debug> fmt::Debug for State<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<S: Send + Sync + 'static> Extract for State<S> {
    type Prepared = State<S>;

    fn prepare(bind: &mut Bind<'_>) -> Option<Self> {
        bind.state::<S>().map(State)
    }

    fn extract(prepared: &Self, _: &Arc<Incoming>, _: &Scope) -> Result<Self, Rejection> {
        Ok(prepared.clone())
    }
}

impl Extract for Publisher {
    type Prepared = ();

    fn prepare(_: &mut Bind<'_>) -> Option<()> {
        Some(())
    }

    fn extract((): &(), _: &Arc<Incoming>, scope: &Scope) -> Result<Self, Rejection> {
        Ok(scope.publisher())
    }
}

impl Extract for Cancel {
    type Prepared = ();

    fn prepare(_: &mut Bind<'_>) -> Option<()> {
        Some(())
    }

    fn extract((): &(), _: &Arc<Incoming>, scope: &Scope) -> Result<Self, Rejection> {
        Ok(scope.cancel().clone())
    }
}

impl Extract for Headers {
    type Prepared = ();

    fn prepare(_: &mut Bind<'_>) -> Option<()> {
        Some(())
    }

    fn extract((): &(), incoming: &Arc<Incoming>, _: &Scope) -> Result<Self, Rejection> {
        Ok(incoming.headers.clone())
    }
}

/// What is known of a message beside its payload.
#[derive(Clone, Debug)]
pub struct Meta {
    incoming: Arc<Incoming>,
    trace_id: String,
}

impl Meta {
    /// The metadata of `incoming`, for a call in a unit test.
    #[must_use]
    pub fn new(incoming: Arc<Incoming>) -> Self {
        Self {
            incoming,
            trace_id: String::new(),
        }
    }

    /// The message's identity: the same on every attempt.
    #[must_use]
    pub fn id(&self) -> &MessageId {
        &self.incoming.id
    }

    /// The topic it was published to.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.incoming.topic
    }

    /// The key, if it has one.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.incoming.key.as_deref()
    }

    /// Which attempt this is, from 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.incoming.attempt
    }

    /// Whether the broker has handed it out before.
    #[must_use]
    pub fn redelivered(&self) -> bool {
        self.incoming.redelivered
    }

    /// The service that published it, if it says so.
    #[must_use]
    pub fn sender(&self) -> Option<String> {
        self.incoming
            .headers
            .text(name::SENDER)
            .map(std::borrow::Cow::into_owned)
    }

    /// When it was published, if it says so.
    #[must_use]
    pub fn published_at(&self) -> Option<SystemTime> {
        parse_time(&self.incoming.headers.text(name::PUBLISHED_AT)?)
    }

    /// Where it was read, in the broker's own words.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.incoming.origin
    }

    /// The identity of the trace it belongs to.
    #[must_use]
    pub fn trace_id(&self) -> &str {
        &self.trace_id
    }
}

impl Extract for Meta {
    type Prepared = ();

    fn prepare(_: &mut Bind<'_>) -> Option<()> {
        Some(())
    }

    fn extract((): &(), incoming: &Arc<Incoming>, scope: &Scope) -> Result<Self, Rejection> {
        Ok(Self {
            incoming: Arc::clone(incoming),
            trace_id: scope.trace().trace_id(),
        })
    }
}

/// The value of a header. Missing or unreadable: the message can never be handled.
///
/// # Errors
/// [`Rejection`] with the header's name and what was expected.
#[doc(hidden)]
pub fn header<T>(incoming: &Incoming, name: &'static str) -> Result<T, Rejection>
where
    T: FromStr,
    T::Err: fmt::Display,
{
    optional_header(incoming, name)?
        .ok_or_else(|| Rejection::dead_letter(format!("the header `{name}` is missing")))
}

/// The value of a header, if it is there.
///
/// # Errors
/// [`Rejection`] if it is there and cannot be read.
#[doc(hidden)]
pub fn optional_header<T>(incoming: &Incoming, name: &'static str) -> Result<Option<T>, Rejection>
where
    T: FromStr,
    T::Err: fmt::Display,
{
    let Some(value) = incoming.headers.get(name) else {
        return Ok(None);
    };
    let text = value
        .to_text()
        .ok_or_else(|| Rejection::dead_letter(format!("the header `{name}` is not a text")))?;
    parse(&text, || format!("the header `{name}`")).map(Some)
}

/// What stands in the topic at the place of `{name}`.
///
/// # Errors
/// [`Rejection`] if it is not there or cannot be read.
#[doc(hidden)]
pub fn segment<T>(incoming: &Incoming, scope: &Scope, name: &'static str) -> Result<T, Rejection>
where
    T: FromStr,
    T::Err: fmt::Display,
{
    optional_segment(incoming, scope, name)?.ok_or_else(|| {
        let topic = &incoming.topic;
        Rejection::dead_letter(format!("the topic `{topic}` has no segment `{{{name}}}`"))
    })
}

/// What stands in the topic at the place of `{name}`, if the topic has the shape of the template.
///
/// # Errors
/// [`Rejection`] if it is there and cannot be read.
#[doc(hidden)]
pub fn optional_segment<T>(
    incoming: &Incoming,
    scope: &Scope,
    name: &'static str,
) -> Result<Option<T>, Rejection>
where
    T: FromStr,
    T::Err: fmt::Display,
{
    let Some(text) = scope.context().pattern.segment(&incoming.topic, name) else {
        return Ok(None);
    };
    parse(text, || format!("the topic's segment `{{{name}}}`")).map(Some)
}

fn parse<T>(text: &str, place: impl Fn() -> String) -> Result<T, Rejection>
where
    T: FromStr,
    T::Err: fmt::Display,
{
    text.parse().map_err(|error| {
        let wanted = short_type_name(type_name::<T>());
        Rejection::dead_letter(format!("{} is not a `{wanted}`: {error}", place()))
    })
}
