//! A second request beside one that is slow.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::clock::later;

use super::super::error::{CallErrorKind, Sent};
use super::super::limits::{Repeat, Second, Turn};
use super::super::pool::{Lease, Pool, Tried};
use super::Stack;
use super::attempt::Attempted;
use super::classify::Verdict;
use super::request::{Answer, Prepared};

/// What came of an attempt with perhaps a second one beside it.
pub(super) struct Hedged {
    pub(super) result: Attempted,
    pub(super) attempts: u32,
}

/// Without an answer after how long a second request is sent.
#[derive(Clone, Copy, Debug)]
pub(super) enum After {
    /// As the configuration says, or as long as answers usually take.
    Usual(Duration),
    /// Half of all the time that there is, where nothing else is said: an instance that takes connections and
    /// never answers must not take the whole call with it, and one that is slow may go on.
    Half(Duration),
}

impl After {
    fn wait(self) -> Duration {
        match self {
            Self::Usual(wait) | Self::Half(wait) => wait,
        }
    }
}

impl Stack {
    /// When a second request is to be sent beside the first, if at all.
    pub(super) fn second_after(
        &self,
        prepared: &Prepared,
        pool: &Pool,
        tried: &Tried,
        now: Instant,
    ) -> Option<After> {
        if !prepared.may_be_sent_twice() {
            return None;
        }
        if let Some(wait) = prepared.usual_wait() {
            return Some(After::Usual(wait));
        }
        // Who limits each attempt has said what to do, and where there is no other it would not help.
        let alone = prepared.decided.attempt_timeout.is_some() || !pool.has_other(tried, now);
        let left = prepared.deadline.saturating_duration_since(now);
        (!alone).then_some(After::Half(left / 2))
    }

    /// Tries once, and a second time beside when there is no answer after a while and the budget allows
    /// it. The first answer counts; the other attempt is given up, which is nobody's failure. It begins at
    /// `now`, which becomes the moment at which it has ended.
    pub(super) async fn hedged(
        &self,
        prepared: &Prepared,
        lease: Lease<'_>,
        tried: &mut Tried,
        after: After,
        now: &mut Instant,
    ) -> Hedged {
        let begun = *now;
        let asked = Arc::clone(lease.target);
        let first = async {
            let mut ended = begun;
            let result = self.attempt(prepared, lease, 1, &mut ended).await;
            prepared.note(&result, ended.saturating_duration_since(begun));
            (result, ended)
        };
        tokio::pin!(first);
        let alone = |(result, ended), now: &mut Instant| {
            *now = ended;
            Hedged {
                result,
                attempts: 1,
            }
        };
        if let Ok(first) = timeout_at(later(begun, after.wait()), &mut first).await {
            return alone(first, now);
        }
        // The first goes on while the second is asked for.
        let allowed = tokio::select! {
            biased;
            first = &mut first => return alone(first, now),
            allowed = self.may_hedge(prepared, after) => allowed,
        };
        let pool = self.pool.load_full();
        let Some((allowed, lease)) = allowed.and_then(|allowed| {
            let wish = self.wish(prepared);
            let now = Instant::now();
            let lease = match after {
                After::Usual(_) => pool.pick_awake(tried, wish, now)?,
                // Beside itself, one that never answers would not answer either.
                After::Half(_) => pool.pick_other(tried, wish, now)?,
            };
            Some((allowed, lease))
        }) else {
            return alone(first.await, now);
        };
        allowed.sent();
        let mut of_its_own = Instant::now();
        let second = self.attempt(prepared, lease, 2, &mut of_its_own);
        tokio::pin!(second);
        let (result, of_second) = tokio::select! {
            biased;
            (result, _) = &mut first => (result, false),
            result = &mut second => (result, true),
        };
        if of_second && result.is_ok() {
            // How long the first would have taken nobody knows, but longer than this.
            let now = Instant::now();
            prepared.outlasted(now - begun);
            // Who was silent for half of all the time has failed.
            if matches!(after, After::Half(_)) {
                asked.was_outdone(now - begun, now);
            }
        }
        let decided = match &result {
            Ok(_) => true,
            Err(failed) => matches!(failed.1, Verdict::Final),
        };
        let other = result
            .as_ref()
            .err()
            .map_or(Sent::No, |failed| failed.0.sent);
        // A failure that another attempt may mend waits for the one that is on its way.
        let (mut result, of_second) = match (decided, of_second) {
            (true, of_second) => (result, of_second),
            (false, true) => (first.await.0, false),
            (false, false) => (second.await, true),
        };
        // What either has sent may have been seen.
        if let Err(failed) = &mut result {
            failed.0.sent = failed.0.sent.max(other);
        }
        // The other kind is a repeat, and counted as such.
        if matches!(after, After::Usual(_)) {
            self.hedging.ended(of_second && result.is_ok());
        }
        *now = Instant::now();
        let attempts = 2;
        let result = result.map(|answer| Answer { attempts, ..answer });
        Hedged { result, attempts }
    }

    /// The right to send a second request now, if there is one.
    async fn may_hedge(&self, prepared: &Prepared, after: After) -> Option<Allowed<'_>> {
        if prepared.body.is_begun() {
            return None;
        }
        let right = match after {
            After::Usual(_) => Right::Second(self.hedging.withdraw()?),
            // It is a repeat, if one that does not wait for the end of the first.
            After::Half(_) => Right::Repeat(self.repeats.withdraw(Instant::now())?),
        };
        let turn = match &self.limiter {
            Some(limiter) => Some(limiter.enter_now().await?),
            None => None,
        };
        Some(Allowed { right, turn })
    }
}

/// What is taken for a second request.
enum Right<'s> {
    Repeat(Repeat<'s>),
    Second(Second<'s>),
}

/// The right to send a second request. Dropped before that, it goes back to where it came from.
struct Allowed<'s> {
    right: Right<'s>,
    turn: Option<Turn<'s>>,
}

impl Allowed<'_> {
    fn sent(self) {
        match self.right {
            Right::Repeat(repeat) => repeat.sent(),
            Right::Second(second) => second.sent(),
        }
        if let Some(turn) = self.turn {
            turn.used();
        }
    }
}

impl Prepared {
    /// Whether second requests of it are sent.
    pub(super) fn is_hedged(&self) -> bool {
        self.decided.hedge.is_some() || self.times.is_some()
    }

    fn may_be_sent_twice(&self) -> bool {
        // Of two that send a stream, each would get a part.
        self.repeatable && !self.body.is_in_pieces()
    }

    /// After what time without an answer it is sent a second time, where that is said.
    fn usual_wait(&self) -> Option<Duration> {
        let least = self.decided.hedge;
        let usual = self.times.as_ref().and_then(|times| times.estimate());
        match usual {
            Some(usual) => Some(usual.max(least.unwrap_or_default())),
            None => least,
        }
    }

    /// A first attempt has ended with this after `took`.
    pub(super) fn note(&self, result: &Attempted, took: Duration) {
        let Some(times) = &self.times else {
            return;
        };
        match result {
            Ok(_) => times.record(took),
            Err(failed) if failed.0.kind == CallErrorKind::Timeout => self.outlasted(took),
            Err(_) => {}
        }
    }

    /// An attempt was not answered within this time.
    fn outlasted(&self, time: Duration) {
        if let Some(times) = &self.times {
            times.outlasted(time);
        }
    }
}
