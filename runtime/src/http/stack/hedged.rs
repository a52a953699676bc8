//! A second request beside one that is slow.

use std::time::Duration;

use tokio::time::timeout;

use super::super::error::Sent;
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
        let first = self.attempt(prepared, lease, 1);
        tokio::pin!(first);
        if let Ok(result) = timeout(after, &mut first).await {
            return Hedged {
                result,
                attempts: 1,
            };
        }
        // The first goes on while the second is asked for.
        let may = tokio::select! {
            biased;
            result = &mut first => return Hedged { result, attempts: 1 },
            may = self.may_hedge(prepared) => may,
        };
        let pool = self.pool.load_full();
        let lease = match may {
            true => self.pick(&pool, tried, prepared),
            false => None,
        };
        let Some(lease) = lease else {
            let result = first.await;
            return Hedged {
                result,
                attempts: 1,
            };
        };
        let second = self.attempt(prepared, lease, 2);
        tokio::pin!(second);
        let (result, of_second) = tokio::select! {
            biased;
            result = &mut first => (result, false),
            result = &mut second => (result, true),
        };
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

    /// Whether a second request may be sent now.
    async fn may_hedge(&self, prepared: &Prepared) -> bool {
        if prepared.body.is_begun() || !self.hedging.withdraw() {
            return false;
        }
        match &self.limiter {
            Some(limiter) => limiter.enter_now().await,
            None => true,
        }
    }
}
