//! Dead letters as operators handle them: list, show, send back, remove.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::clock::{Rng, SystemClock};
use crate::message::{Headers, Incoming, MessageId, headers::name, parse_time};
use crate::resilience::RateLimiter;

use super::port::{BrokerError, BrokerErrorKind, DeadLetterStore, MessageBroker, Subscription};

/// How often dead letters are moved where a rate is asked for: so many at once as are due by then.
const ROUND: Duration = Duration::from_millis(100);

/// The dead letters of one subscription.
///
/// ```no_run
/// # async fn example(letters: interline::messaging::DeadLetters)
/// #     -> Result<(), interline::messaging::BrokerError> {
/// use interline::messaging::Redrive;
///
/// for letter in letters.list(10).await? {
///     println!("{} {}", letter.id(), letter.reason());
/// }
/// // The bank is back: what failed because of it is tried again.
/// let moved = letters
///     .redrive(&Redrive::new().matching(|letter| letter.reason() == "retries_exhausted"))
///     .await?;
/// # let _ = moved;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct DeadLetters {
    broker: Arc<dyn MessageBroker>,
    subscription: Arc<Subscription>,
}

impl DeadLetters {
    /// The dead letters of `subscription` on `broker`.
    #[must_use]
    pub fn new(broker: Arc<dyn MessageBroker>, subscription: Arc<Subscription>) -> Self {
        Self {
            broker,
            subscription,
        }
    }

    /// The subscription.
    #[must_use]
    pub fn subscription(&self) -> &Arc<Subscription> {
        &self.subscription
    }

    /// At most `limit` dead letters, oldest first. They stay where they are.
    ///
    /// # Errors
    /// [`BrokerError`] if the broker cannot be asked or keeps none.
    pub async fn list(&self, limit: usize) -> Result<Vec<DeadLetter>, BrokerError> {
        let found = self.store()?.list(&self.subscription, limit).await?;
        Ok(found.into_iter().map(DeadLetter).collect())
    }

    /// The dead letter of this message, if it is among the oldest `within`.
    ///
    /// # Errors
    /// As for [`DeadLetters::list`].
    pub async fn show(
        &self,
        id: &MessageId,
        within: usize,
    ) -> Result<Option<DeadLetter>, BrokerError> {
        let all = self.list(within).await?;
        Ok(all.into_iter().find(|letter| letter.id() == id))
    }

    /// Sends dead letters back to their subscription (and to no other) as new first attempts, with
    /// the same identities. Returns how many, or with `dry_run` how many would be.
    ///
    /// Each copy is confirmed before its dead letter is removed: killed half way, it can be run
    /// again. Up to 128 are on their way at once, in their order; so many at most come twice when it is
    /// killed. What fails again and comes back meanwhile stays a dead letter: each is sent once.
    ///
    /// # Errors
    /// As for [`DeadLetters::list`]; what was moved before stays moved. On Kafka
    /// [`BrokerErrorKind::Unsupported`] for the letters of a subscription of each instance, which has no
    /// topic of its own there.
    pub async fn redrive(&self, redrive: &Redrive) -> Result<usize, BrokerError> {
        if redrive.dry_run {
            let all = self.list(usize::MAX).await?;
            let chosen = all.iter().filter(|letter| redrive.chooses(&letter.0));
            return Ok(chosen.take(redrive.limit).count());
        }
        let origin = format!("{}:{}", self.broker.name(), self.subscription.label);
        let run = MessageId::generate(&SystemClock, &Rng::new()).to_string();
        let choose = |incoming: &Incoming| {
            let came_back = incoming.headers.text(name::REDRIVEN_BY).as_deref() == Some(&*run);
            (!came_back && redrive.chooses(incoming)).then(|| {
                let mut headers = fresh_headers(incoming, &origin);
                headers.set(name::REDRIVEN_BY, run.clone());
                headers
            })
        };
        let store = self.store()?;
        let Some((count, per)) = redrive.rate else {
            return store
                .redrive(&self.subscription, redrive.limit, &choose)
                .await;
        };
        let limiter = RateLimiter::new(count, per);
        let in_a_round = per_round(count, per);
        let mut moved = 0;
        while moved < redrive.limit {
            let due = in_a_round.min(redrive.limit - moved);
            for _ in 0..due {
                limiter.ready().await;
            }
            let now = store.redrive(&self.subscription, due, &choose).await?;
            moved += now;
            if now < due {
                break;
            }
        }
        Ok(moved)
    }

    /// Removes dead letters for which `choose` says so, at most `limit`, oldest first. Returns how
    /// many.
    ///
    /// # Errors
    /// As for [`DeadLetters::list`].
    pub async fn purge(
        &self,
        limit: usize,
        choose: impl Fn(&DeadLetter) -> bool + Send + Sync,
    ) -> Result<usize, BrokerError> {
        let choose = |incoming: &Incoming| choose(&DeadLetter(incoming.clone()));
        self.store()?
            .purge(&self.subscription, limit, &choose)
            .await
    }

    fn store(&self) -> Result<&dyn DeadLetterStore, BrokerError> {
        self.broker.dead_letters().ok_or_else(|| {
            let text = format!(
                "a broker of kind `{}` keeps no dead letters",
                self.broker.kind()
            );
            BrokerError::new(BrokerErrorKind::Unsupported, self.broker.name(), text)
        })
    }
}

impl fmt::Debug for DeadLetters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadLetters")
            .field("subscription", &self.subscription.label)
            .finish()
    }
}

/// Which dead letters are sent back, and how fast. All of them, at once, unless said otherwise.
pub struct Redrive {
    limit: usize,
    rate: Option<(u32, Duration)>,
    dry_run: bool,
    matching: Option<Box<Choose>>,
}

type Choose = dyn Fn(&DeadLetter) -> bool + Send + Sync;

impl Redrive {
    /// All of them.
    #[must_use]
    pub fn new() -> Self {
        Self {
            limit: usize::MAX,
            rate: None,
            dry_run: false,
            matching: None,
        }
    }

    /// At most so many.
    #[must_use]
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    /// At most `count` (at least 1) in each `per`.
    #[must_use]
    pub fn rate(mut self, count: u32, per: Duration) -> Self {
        self.rate = Some((count, per));
        self
    }

    /// Only counts.
    #[must_use]
    pub fn dry_run(mut self) -> Self {
        self.dry_run = true;
        self
    }

    /// Only those for which `choose` says so.
    #[must_use]
    pub fn matching(
        mut self,
        choose: impl Fn(&DeadLetter) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.matching = Some(Box::new(choose));
        self
    }

    fn chooses(&self, incoming: &Incoming) -> bool {
        self.matching
            .as_ref()
            .is_none_or(|choose| choose(&DeadLetter(incoming.clone())))
    }
}

impl Default for Redrive {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Redrive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redrive")
            .field("limit", &self.limit)
            .field("rate", &self.rate)
            .field("dry_run", &self.dry_run)
            .finish_non_exhaustive()
    }
}

/// One message that was given up.
#[derive(Clone, Debug)]
pub struct DeadLetter(Incoming);

impl DeadLetter {
    /// Wraps a message that was read from dead letters.
    #[must_use]
    pub fn new(incoming: Incoming) -> Self {
        Self(incoming)
    }

    /// The message's identity.
    #[must_use]
    pub fn id(&self) -> &MessageId {
        &self.0.id
    }

    /// The message: its bytes are those that were published.
    #[must_use]
    pub fn message(&self) -> &Incoming {
        &self.0
    }

    /// The topic it was published to.
    #[must_use]
    pub fn topic(&self) -> Cow<'_, str> {
        self.text(name::DLQ_TOPIC)
            .unwrap_or(Cow::Borrowed(&self.0.topic))
    }

    /// Why it was given up: `retries_exhausted`, `decode`, `timeout`, ...
    #[must_use]
    pub fn reason(&self) -> Cow<'_, str> {
        self.text(name::DLQ_REASON)
            .unwrap_or(Cow::Borrowed("unknown"))
    }

    /// The last error in words.
    #[must_use]
    pub fn error(&self) -> Option<Cow<'_, str>> {
        self.text(name::DLQ_ERROR)
    }

    /// The type of the last error.
    #[must_use]
    pub fn error_type(&self) -> Option<Cow<'_, str>> {
        self.text(name::DLQ_ERROR_TYPE)
    }

    /// The handler that gave it up.
    #[must_use]
    pub fn handler(&self) -> Option<Cow<'_, str>> {
        self.text(name::DLQ_HANDLER)
    }

    /// How many attempts were made.
    #[must_use]
    pub fn attempts(&self) -> Option<u64> {
        self.0.headers.get(name::DLQ_ATTEMPTS)?.to_u64()
    }

    /// When it was given up.
    #[must_use]
    pub fn failed_at(&self) -> Option<SystemTime> {
        parse_time(&self.text(name::DLQ_FAILED_AT)?)
    }

    /// When its first attempt failed.
    #[must_use]
    pub fn first_failed_at(&self) -> Option<SystemTime> {
        parse_time(&self.text(name::DLQ_FIRST_FAILED_AT)?)
    }

    fn text(&self, name: &str) -> Option<Cow<'_, str>> {
        self.0.headers.text(name)
    }
}

/// How many of `count` in `per` are due in one round; at least one.
fn per_round(count: u32, per: Duration) -> usize {
    let share = ROUND.as_nanos() * u128::from(count) / per.as_nanos().max(1);
    usize::try_from(share.min(u128::from(count))).map_or(1, |due| due.max(1))
}

/// The headers of a first attempt: nothing of what had gone wrong, but where it lay.
fn fresh_headers(incoming: &Incoming, origin: &str) -> Headers {
    let mut headers = incoming.headers.clone();
    let ours = [name::ATTEMPT, name::FIRST_FAILURE, name::RETRY_DUE];
    headers.retain(|name, _| {
        let of_the_dead = name
            .get(..name::DLQ_PREFIX.len())
            .is_some_and(|prefix| prefix.eq_ignore_ascii_case(name::DLQ_PREFIX));
        !of_the_dead && !ours.iter().any(|known| name.eq_ignore_ascii_case(known))
    });
    headers.set(name::REDRIVEN_FROM, origin.to_owned());
    headers
}
