//! A second request beside one that is slow.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::super::error::{CallErrorKind, Sent};
use super::super::limits::{Second, Turn};
use super::super::pool::{Lease, Tried};
use super::Stack;
use super::attempt::Attempted;
use super::classify::Verdict;
use super::request::{Answer, Prepared};

/// What came of an attempt with perhaps a second one beside it.
pub(super) struct Hedged {
    pub(super) result: Attempted,
    pub(super) attempts: u32,
}

impl Stack {
    /// Tries once, and a second time beside when there is no answer after a while and the budget allows
    /// it. The first answer counts; the other attempt is given up, which is nobody's failure.
    pub(super) async fn hedged(
        &self,
        prepared: &Prepared,
        lease: Lease<'_>,
        tried: &mut Tried,
        after: Duration,
    ) -> Hedged {
        let begun = Instant::now();
        let first = async {
            let result = self.attempt(prepared, lease, 1).await;
            prepared.note(begun, &result);
            result
        };
        tokio::pin!(first);
        let alone = |result| Hedged {
            result,
            attempts: 1,
        };
        if let Ok(result) = timeout(after, &mut first).await {
            return alone(result);
        }
        // The first goes on while the second is asked for.
        let allowed = tokio::select! {
            biased;
            result = &mut first => return alone(result),
            allowed = self.may_hedge(prepared) => allowed,
        };
        let pool = self.pool.load_full();
        let Some((allowed, lease)) = allowed.and_then(|allowed| {
            let wish = self.wish(prepared);
            let lease = pool.pick_awake(tried, wish, Instant::now())?;
            Some((allowed, lease))
        }) else {
            return alone(first.await);
        };
        allowed.sent();
        let second = self.attempt(prepared, lease, 2);
        tokio::pin!(second);
        let (result, of_second) = tokio::select! {
            biased;
            result = &mut first => (result, false),
            result = &mut second => (result, true),
        };
        if of_second && result.is_ok() {
            // How long the first would have taken nobody knows, but longer than this.
            prepared.outlasted(begun);
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
            (false, true) => (first.await, false),
            (false, false) => (second.await, true),
        };
        // What either has sent may have been seen.
        if let Err(failed) = &mut result {
            failed.0.sent = failed.0.sent.max(other);
        }
        self.hedging.ended(of_second && result.is_ok());
        let attempts = 2;
        let result = result.map(|answer| Answer { attempts, ..answer });
        Hedged { result, attempts }
    }

    /// The right to send a second request now, if there is one.
    async fn may_hedge(&self, prepared: &Prepared) -> Option<Allowed<'_>> {
        if prepared.body.is_begun() {
            return None;
        }
        let second = self.hedging.withdraw()?;
        let turn = match &self.limiter {
            Some(limiter) => Some(limiter.enter_now().await?),
            None => None,
        };
        Some(Allowed { second, turn })
    }
}

/// The right to send a second request. Dropped before that, it goes back to where it came from.
struct Allowed<'s> {
    second: Second<'s>,
    turn: Option<Turn<'s>>,
}

impl Allowed<'_> {
    fn sent(self) {
        self.second.sent();
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

    /// After what time without an answer it is sent a second time.
    pub(super) fn second_after(&self) -> Option<Duration> {
        // Of two that send a stream, each would get a part.
        if !self.repeatable || self.body.is_in_pieces() {
            return None;
        }
        let least = self.decided.hedge;
        let usual = self.times.as_ref().and_then(|times| times.estimate());
        match usual {
            Some(usual) => Some(usual.max(least.unwrap_or_default())),
            None => least,
        }
    }

    /// A first attempt that began then has ended with this.
    pub(super) fn note(&self, begun: Instant, result: &Attempted) {
        let Some(times) = &self.times else {
            return;
        };
        match result {
            Ok(_) => times.record(begun.elapsed()),
            Err(failed) if failed.0.kind == CallErrorKind::Timeout => self.outlasted(begun),
            Err(_) => {}
        }
    }

    /// An attempt that began then was not answered until now.
    fn outlasted(&self, begun: Instant) {
        if let Some(times) = &self.times {
            times.outlasted(begun.elapsed());
        }
    }
}
