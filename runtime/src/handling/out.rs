//! `Out`: sending from within a handler, bound to the message that is being handled.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use crate::message::{Incoming, Message};

use super::bind::Bind;
use super::extract::{Extract, Rejection};
use super::publish::PublishError;
use super::publisher::Publish;
use super::scope::Scope;

/// Sends messages of type `M` that belong to the message being handled.
///
/// They inherit its correlation, trace and key; their ids are derived from its id, so a repeat after
/// a crash can be recognised. They are published when the handler has succeeded, and confirmed before
/// the input is acknowledged; after a failed attempt nothing is published.
///
/// ```
/// use interline::prelude::*;
/// # #[derive(Message, Serialize, Deserialize)]
/// # #[message(topic = "billing.line", subscribers = optional)]
/// # struct Line { sku: String }
/// # #[derive(Message, Serialize, Deserialize)]
/// # #[message(topic = "billing.invoice")]
/// # struct Invoice { skus: Vec<String> }
///
/// async fn split(invoice: Invoice, lines: Out<Line>) -> Result<(), PublishError> {
///     for sku in invoice.skus {
///         lines.send(Line { sku })?;
///     }
///     Ok(())
/// }
/// ```
pub struct Out<M> {
    scope: Scope,
    message: PhantomData<fn(M)>,
}

impl<M: Message> Out<M> {
    /// Sends a message when the handler has succeeded.
    ///
    /// # Errors
    /// [`PublishError`] if the message cannot be prepared: its topic, id or value is not valid.
    pub fn send(&self, message: M) -> Result<(), PublishError> {
        self.send_with(Publish::new(message))
    }

    /// Sends a message with more to say; see [`Publish`].
    ///
    /// # Errors
    /// As for [`Out::send`].
    pub fn send_with(&self, message: Publish<M>) -> Result<(), PublishError> {
        let outgoing = self.scope.prepare_output(message)?;
        self.scope.send_later(outgoing);
        Ok(())
    }
}

impl<M: Message> Extract for Out<M> {
    type Prepared = ();

    fn prepare(_: &mut Bind<'_>) -> Option<()> {
        Some(())
    }

    fn extract((): &(), _: &Arc<Incoming>, scope: &Scope) -> Result<Self, Rejection> {
        Ok(Self {
            scope: scope.clone(),
            message: PhantomData,
        })
    }
}

impl<M> fmt::Debug for Out<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Out").field(&self.scope).finish()
    }
}
