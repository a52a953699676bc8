//! Assertions about a [`TestApp`]: macros, and what they expand to.

use std::fmt::Write as _;

use crate::message::{Incoming, Message};
use crate::messaging::DeadLetter;
use crate::registry::Subscriber;

use super::TestApp;

/// Longest part of a body that a failure shows, in characters.
const BODY_MAX: usize = 200;

/// Asserts that the app has published a message, and gives the first that fits. Settles first.
///
/// What the test published itself does not count.
///
/// ```
/// # use interline::prelude::*;
/// # use interline::{assert_published, testing::TestApp};
/// # #[derive(Message, Serialize, Deserialize)]
/// # #[message(topic = "billing.charged", subscribers = optional)]
/// # struct Charged { order_id: String, cents: u64 }
/// # async fn test(app: TestApp) {
/// let charged = assert_published!(app, Charged);
/// assert_published!(app, Charged { order_id: "1", .. });
/// assert_published!(app, |charged: &Charged| charged.cents > 100);
/// # }
/// ```
#[macro_export]
macro_rules! assert_published {
    ($app:expr, $message:path { $($field:ident : $value:expr),* $(, ..)? $(,)? } $(,)?) => {
        $crate::testing::assertions::or_panic!($crate::testing::assertions::published::<$message>(
            &$app,
            |message| true $(&& message.$field == $value)*,
            ::core::concat!(
                ::core::stringify!($message), " { ",
                $(::core::stringify!($field), ": ", ::core::stringify!($value), ", ",)* ".. }"
            ),
        ))
    };
    ($app:expr, $message:ty $(,)?) => {
        $crate::testing::assertions::or_panic!($crate::testing::assertions::published::<$message>(
            &$app,
            |_| true,
            ::core::stringify!($message),
        ))
    };
    ($app:expr, $fits:expr $(,)?) => {
        $crate::testing::assertions::or_panic!($crate::testing::assertions::published(
            &$app,
            $fits,
            ::core::stringify!($fits),
        ))
    };
}

/// Asserts that the app has published no such message. Settles first; a message that waits for a
/// later retry may still lead to one.
///
/// It takes what [`assert_published!`](crate::assert_published) takes.
#[macro_export]
macro_rules! assert_not_published {
    ($app:expr, $message:path { $($field:ident : $value:expr),* $(, ..)? $(,)? } $(,)?) => {
        $crate::testing::assertions::or_panic!($crate::testing::assertions::not_published::<$message>(
            &$app,
            |message| true $(&& message.$field == $value)*,
            ::core::concat!(
                ::core::stringify!($message), " { ",
                $(::core::stringify!($field), ": ", ::core::stringify!($value), ", ",)* ".. }"
            ),
        ))
    };
    ($app:expr, $message:ty $(,)?) => {
        $crate::testing::assertions::or_panic!($crate::testing::assertions::not_published::<$message>(
            &$app,
            |_| true,
            ::core::stringify!($message),
        ))
    };
    ($app:expr, $fits:expr $(,)?) => {
        $crate::testing::assertions::or_panic!($crate::testing::assertions::not_published(
            &$app,
            $fits,
            ::core::stringify!($fits),
        ))
    };
}

/// Asserts that a subscriber has given a message up, and gives the first that fits. Settles first;
/// where attempts are made over a longer time, [`TestApp::settle_within`] comes before it.
///
/// ```
/// # use interline::prelude::*;
/// # use interline::{assert_dead_lettered, testing::TestApp};
/// # interline::service!("billing");
/// # #[derive(Message, Serialize, Deserialize)]
/// # #[message(topic = "orders.placed")]
/// # struct OrderPlaced { order_id: String }
/// # #[subscriber]
/// # async fn charge(order: OrderPlaced) {}
/// # async fn test(app: TestApp) {
/// assert_dead_lettered!(app, charge);
/// let letter = assert_dead_lettered!(app, charge, reason = "rejected");
/// assert_eq!(letter.attempts(), Some(1));
/// # }
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! assert_dead_lettered {
    ($app:expr, $subscriber:ty $(,)?) => {
        $crate::testing::assertions::or_panic!($crate::testing::assertions::dead_lettered::<
            $subscriber,
        >(&$app, None))
    };
    ($app:expr, $subscriber:ty, reason = $reason:expr $(,)?) => {
        $crate::testing::assertions::or_panic!($crate::testing::assertions::dead_lettered::<
            $subscriber,
        >(&$app, Some($reason)))
    };
}

/// Panics where the assertion is written.
#[doc(hidden)]
#[macro_export]
macro_rules! __or_panic {
    ($asserted:expr) => {
        match $asserted.await {
            ::core::result::Result::Ok(found) => found,
            ::core::result::Result::Err(failure) => ::core::panic!("{failure}"),
        }
    };
}

pub use __or_panic as or_panic;

/// The first message that fits, or the text of the failure.
pub async fn published<M: Message>(
    app: &TestApp,
    fits: impl Fn(&M) -> bool,
    wanted: &str,
) -> Result<M, String> {
    app.settle().await;
    if let Some(found) = app.published::<M>().into_iter().find(fits) {
        return Ok(found);
    }
    let mut what = format!("expected a published {}", quoted::<M>(wanted));
    let all = app.sent_by_app();
    if all.is_empty() {
        what.push_str("\npublished instead: nothing");
    } else {
        what.push_str("\npublished instead:");
        list(&mut what, &all);
    }
    Err(app.failure(&what))
}

/// Nothing, or the text of the failure if a message fits.
pub async fn not_published<M: Message>(
    app: &TestApp,
    fits: impl Fn(&M) -> bool,
    unwanted: &str,
) -> Result<(), String> {
    app.settle().await;
    let all = app.envelopes::<M>();
    let read = app.published::<M>();
    let found: Vec<Incoming> = all
        .into_iter()
        .zip(&read)
        .filter_map(|(envelope, message)| fits(message).then_some(envelope))
        .collect();
    if found.is_empty() {
        return Ok(());
    }
    let mut what = format!(
        "expected no published {}\npublished:",
        quoted::<M>(unwanted)
    );
    list(&mut what, &found);
    Err(app.failure(&what))
}

/// The first dead letter that fits, or the text of the failure.
pub async fn dead_lettered<S: Subscriber>(
    app: &TestApp,
    reason: Option<&str>,
) -> Result<DeadLetter, String> {
    app.settle().await;
    let name = S::DESCRIPTOR.name();
    let letters = app.dead_letters(name).await;
    let fits = |letter: &&DeadLetter| reason.is_none_or(|reason| letter.reason() == reason);
    if let Some(found) = letters.iter().find(fits) {
        return Ok(found.clone());
    }
    let reason = reason.map_or(String::new(), |reason| format!(" with reason `{reason}`"));
    let mut what = format!("expected a dead letter of `{name}`{reason}");
    if letters.is_empty() {
        let _ = write!(what, "\ndead letters of `{name}`: none");
    } else {
        let _ = write!(what, "\ndead letters of `{name}`:");
    }
    for letter in &letters {
        let error = letter.error().unwrap_or_default();
        let attempts = letter.attempts().unwrap_or(1);
        let plural = if attempts == 1 { "" } else { "s" };
        let _ = write!(
            what,
            "\n  {} after {attempts} attempt{plural}: {error} (id {})",
            letter.reason(),
            letter.id()
        );
    }
    Err(app.failure(&what))
}

fn quoted<M: Message>(wanted: &str) -> String {
    // The compiler breaks long expressions where it likes.
    let wanted = wanted.split_whitespace().collect::<Vec<_>>().join(" ");
    format!("`{wanted}` (topic {})", M::CONTRACT.topic)
}

fn list(text: &mut String, messages: &[Incoming]) {
    for message in messages {
        let kind = message.message_type();
        let kind = kind.as_deref().unwrap_or("without a type");
        let body = String::from_utf8_lossy(&message.body);
        let printable = |c: char| if c.is_control() { ' ' } else { c };
        let mut shown: String = body.chars().map(printable).take(BODY_MAX).collect();
        if shown.len() < body.len() {
            shown.push_str("...");
        }
        let (topic, id) = (&message.topic, &message.id);
        let _ = write!(text, "\n  {topic}  {kind} {shown} (id {id})");
    }
}
