//! Middleware: code of the user around every handler, or around every publish.

use std::fmt;
use std::sync::Arc;

use crate::message::{Incoming, Outgoing};

use super::BoxFuture;
use super::handler::OneFn;
use super::outcome::Outcome;
use super::publish::{PublishError, Receipt};
use super::scope::Scope;

/// Code around the handling of each message of single-message subscribers.
///
/// It may change the message before the handler sees it, answer by itself, or look at the outcome.
///
/// ```
/// use interline::handling::{BoxFuture, Middleware, Next, Outcome};
/// use interline::message::Incoming;
///
/// struct RefuseTests;
///
/// impl Middleware for RefuseTests {
///     fn handle<'a>(&'a self, incoming: &'a mut Incoming, next: Next<'a>) -> BoxFuture<'a, Outcome> {
///         Box::pin(async move {
///             if incoming.headers.contains("x-test") {
///                 return Outcome::discard("a test message");
///             }
///             next.run(incoming).await
///         })
///     }
/// }
/// ```
pub trait Middleware: Send + Sync + 'static {
    /// Handles `incoming`, usually by calling [`Next::run`].
    fn handle<'a>(&'a self, incoming: &'a mut Incoming, next: Next<'a>) -> BoxFuture<'a, Outcome>;
}

/// The rest of the way to the handler.
#[derive(Clone)]
pub struct Next<'a> {
    rest: &'a [Arc<dyn Middleware>],
    handler: &'a OneFn,
    scope: &'a Scope,
}

impl<'a> Next<'a> {
    /// The way through `rest` to `handler`.
    #[must_use]
    pub fn new(rest: &'a [Arc<dyn Middleware>], handler: &'a OneFn, scope: &'a Scope) -> Self {
        Self {
            rest,
            handler,
            scope,
        }
    }

    /// The surroundings of the attempt.
    #[must_use]
    pub fn scope(&self) -> &Scope {
        self.scope
    }

    /// Goes on.
    pub fn run(self, incoming: &'a mut Incoming) -> BoxFuture<'a, Outcome> {
        match self.rest.split_first() {
            Some((first, rest)) => first.handle(incoming, Self { rest, ..self }),
            None => (self.handler)(Arc::new(incoming.clone()), self.scope.clone()),
        }
    }
}

impl fmt::Debug for Next<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Next")
            .field("rest", &self.rest.len())
            .finish_non_exhaustive()
    }
}

/// Code around each publish.
///
/// ```
/// use interline::handling::{BoxFuture, PublishError, PublishMiddleware, PublishNext, Receipt};
/// use interline::message::Outgoing;
///
/// struct Tenant;
///
/// impl PublishMiddleware for Tenant {
///     fn publish<'a>(&'a self, mut outgoing: Outgoing, next: PublishNext<'a>)
///         -> BoxFuture<'a, Result<Receipt, PublishError>>
///     {
///         outgoing.headers.set("x-tenant", "acme");
///         next.run(outgoing)
///     }
/// }
/// ```
pub trait PublishMiddleware: Send + Sync + 'static {
    /// Publishes `outgoing`, usually by calling [`PublishNext::run`].
    fn publish<'a>(
        &'a self,
        outgoing: Outgoing,
        next: PublishNext<'a>,
    ) -> BoxFuture<'a, Result<Receipt, PublishError>>;
}

/// The rest of the way to the broker.
#[derive(Clone)]
pub struct PublishNext<'a> {
    rest: &'a [Arc<dyn PublishMiddleware>],
    last: &'a LastFn<'a>,
}

/// Sends a message that has passed all middleware.
type LastFn<'a> =
    dyn Fn(Outgoing) -> BoxFuture<'a, Result<Receipt, PublishError>> + Send + Sync + 'a;

impl<'a> PublishNext<'a> {
    pub(crate) fn new(rest: &'a [Arc<dyn PublishMiddleware>], last: &'a LastFn<'a>) -> Self {
        Self { rest, last }
    }

    /// Goes on.
    pub fn run(self, outgoing: Outgoing) -> BoxFuture<'a, Result<Receipt, PublishError>> {
        match self.rest.split_first() {
            Some((first, rest)) => first.publish(outgoing, Self { rest, ..self }),
            None => (self.last)(outgoing),
        }
    }
}

impl fmt::Debug for PublishNext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublishNext")
            .field("rest", &self.rest.len())
            .finish_non_exhaustive()
    }
}
