//! Answering: what a subscriber returns to the one who asked.

use crate::message::{Contract, Message};

use super::outcome::{IntoOutcome, Outcome};
use super::scope::Scope;

/// Answers the message that is being handled, if it asks for a reply: if it has a header `reply-to`.
/// A message that does not ask is handled all the same, and the reply goes nowhere.
///
/// `R` is the reply that the contract of the payload names; anything else does not compile. When the
/// handler fails for good, the one who asked gets a [`Fault`](super::Fault) with the reason.
///
/// ```
/// use interline::prelude::*;
/// # interline::service!("quotes");
///
/// #[derive(Message, Serialize, Deserialize)]
/// #[message(topic = "quotes.asked", reply = Quote)]
/// struct QuoteAsk { sku: String }
///
/// #[derive(Message, Serialize, Deserialize)]
/// #[message(topic = "quotes.given")]
/// struct Quote { cents: u64 }
///
/// #[subscriber]
/// async fn quote(ask: QuoteAsk) -> Reply<Quote> {
///     Reply(Quote { cents: 100 * ask.sku.len() as u64 })
/// }
///
/// async fn ask(publisher: &Publisher) -> Result<u64, RequestError> {
///     let quote = publisher.request(&QuoteAsk { sku: "tea".into() }).await?;
///     Ok(quote.cents)
/// }
/// # fn main() {}
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply<R>(pub R);

#[diagnostic::do_not_recommend]
impl<R: Message> IntoOutcome for Reply<R> {
    fn into_outcome(self, scope: &Scope) -> Outcome {
        match scope.prepare_reply(&self.0) {
            Ok(outgoing) => Outcome::publishing(outgoing.into_iter().collect()),
            Err(error) => Outcome::unprepared(&error),
        }
    }

    fn publishes(_: &mut Vec<&'static Contract>) {}

    fn replies() -> bool {
        true
    }
}
