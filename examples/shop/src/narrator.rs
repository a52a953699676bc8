//! Tells of failed attempts, which no message speaks of.

use std::sync::Arc;

use interline::handling::{BoxFuture, Middleware, Next, Outcome};
use interline::message::Incoming;

use crate::account::Account;

/// Looks at the outcome of every attempt in this process.
pub(crate) struct Narrator(Arc<Account>);

impl Narrator {
    pub(crate) fn new(account: Arc<Account>) -> Self {
        Self(account)
    }
}

impl Middleware for Narrator {
    fn handle<'a>(&'a self, incoming: &'a mut Incoming, next: Next<'a>) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let (key, attempt) = (incoming.key.clone(), incoming.attempt);
            let outcome = next.run(incoming).await;
            if let Some(failed) = &outcome.failed {
                self.0
                    .failed(key.as_deref().unwrap_or("-"), attempt, &failed.text);
            }
            outcome
        })
    }
}
