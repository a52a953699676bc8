//! A call that another service answers, where its own gives nothing.

use std::sync::Arc;

use tokio::time::Instant;

use super::super::context::Ambient;
use super::super::error::CallFailure;
use super::super::read::Read;
use super::super::stack::Stack;
use super::{Call, Meta};

/// The same call, of the service that stands in.
pub(super) struct Elsewhere {
    call: Call,
    /// Who counts that it was needed.
    asked: (Arc<Stack>, Arc<Meta>),
    deadline: Instant,
}

impl Call {
    /// The same call of the service that stands in, where there is one. Both are one call: they share its
    /// time, of which the first gets half, its trace, and its key.
    pub(super) fn elsewhere(&mut self) -> Option<Elsewhere> {
        let (stack, meta) = self.meta.elsewhere.as_ref()?;
        let (stack, meta) = (Arc::clone(stack), Arc::clone(meta));
        let ambient = Ambient::current();
        let now = Instant::now();
        let deadline = self.deadline(ambient.as_ref(), now);
        self.trace = Some(self.stack.trace(ambient.as_ref()));
        self.add_key();
        let call = Self {
            stack,
            meta,
            options: self.options.clone().deadline(deadline),
            keyed: self.keyed,
            trace: self.trace.clone(),
            path: self.path.clone(),
            query: self.query.clone(),
            headers: self.headers.clone(),
            body: self.body.clone(),
            flaw: None,
        };
        // One that takes connections and never answers must not take the time of the other, too.
        let half = now + deadline.saturating_duration_since(now) / 2;
        self.options = std::mem::take(&mut self.options).deadline(half);
        Some(Elsewhere {
            call,
            asked: (Arc::clone(&self.stack), Arc::clone(&self.meta)),
            deadline,
        })
    }
}

impl Elsewhere {
    /// What `call` gives, or where that is nothing, what this one gives.
    pub(super) async fn or<R: Read>(self, call: Call) -> Result<R::Output, Box<CallFailure>> {
        let failure = match call.send_here::<R>().await {
            // No other service makes a wrong request right.
            Err(failure) if !failure.is_client_error() && Instant::now() < self.deadline => failure,
            result => return result,
        };
        let other = self.call.send_here::<R>().await;
        match other {
            // That the other service cannot be asked says nothing of what the first has done.
            Err(other) if other.status.is_none() || !other.is_client_error() => {
                Err(failure.beside(&other))
            }
            other => {
                let (stack, meta) = &self.asked;
                meta.falls_back(stack, &failure.to_string());
                other
            }
        }
    }
}
