//! The way of a batch through the engine: each message gets its own verdict, and those that are tried
//! again soon form the next, smaller batch.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::Instrument;

use crate::handling::{BatchFn, Fate, Outcome};
use crate::messaging::{CrashPoint, RetryPolicy};

use super::attempt;
use super::held::Held;
use super::process::{Turn, publish_outputs, settle};
use super::subscription::{HandlerRuntime, Subscribed};
use super::verdict::{self, HELD_WAIT_MAX, Verdict};

/// Takes all messages of a batch to their ends.
pub(super) async fn process_batch(
    subscribed: Arc<Subscribed>,
    mut batch: Vec<Held>,
    mut turn: Turn,
) {
    let Some((handler, run)) = batch_handler(&subscribed) else {
        return;
    };
    let redelivered = batch
        .iter()
        .filter(|held| held.incoming.redelivered)
        .count();
    if redelivered > 0 {
        subscribed
            .redelivered
            .record(u32::try_from(redelivered).map_or(f64::MAX, f64::from));
    }
    batch = refuse_unknown(&subscribed, batch).await;
    loop {
        batch.retain_mut(|held| {
            let current = held.is_current();
            if !current {
                // Of a connection that is gone: the broker hands it out again.
                drop(held.take());
            }
            current
        });
        if batch.is_empty() {
            return;
        }
        let leave = tokio::select! {
            biased;
            leave = subscribed.breaker.enter() => leave,
            () = subscribed.draining() => None,
        };
        let Some(leave) = leave else {
            // Dropping them gives them back.
            return;
        };
        let outcomes = attempt_once(&subscribed, handler, run, &batch).await;
        let decided: Vec<_> = batch
            .into_iter()
            .zip(outcomes)
            .map(|(held, outcome)| {
                let environment = &subscribed.environment;
                let verdict = verdict::decide(outcome, &held.incoming, handler.retry, environment);
                (held, verdict)
            })
            .collect();
        leave.end(decided.iter().map(|(_, verdict)| verdict));
        let mut again = Vec::new();
        let mut wait = Duration::ZERO;
        for (mut held, verdict) in decided {
            match verdict {
                Verdict::Retry { wait: own, failed } if own < HELD_WAIT_MAX || turn.is_lane() => {
                    handler.measured.retried(failed.reason.as_str());
                    let now = subscribed.environment.clock.now();
                    verdict::count_attempt(Arc::make_mut(&mut held.incoming), now);
                    wait = wait.max(own);
                    again.push(held);
                }
                verdict => settle(&subscribed, Some(handler), &mut held, verdict).await,
            }
        }
        if again.is_empty() {
            return subscribed.passes(CrashPoint::AfterSettlement).await;
        }
        if !turn.wait(&subscribed, wait).await {
            // Dropping them gives them back.
            return;
        }
        batch = again;
    }
}

async fn attempt_once(
    subscribed: &Subscribed,
    handler: &HandlerRuntime,
    run: &BatchFn,
    batch: &[Held],
) -> Vec<Outcome> {
    subscribed.passes(CrashPoint::BeforeHandler).await;
    let messages: Vec<_> = batch
        .iter()
        .map(|held| Arc::clone(&held.incoming))
        .collect();
    handler
        .measured
        .consumed
        .record(u32::try_from(messages.len()).map_or(f64::MAX, f64::from));
    let started = Instant::now();
    let (mut outcomes, span) = attempt::run_batch(handler, run, &messages).await;
    subscribed.passes(CrashPoint::BeforeOutputs).await;
    for outcome in &mut outcomes {
        publish_outputs(subscribed, outcome)
            .instrument(span.clone())
            .await;
    }
    if let Some(failed) = outcomes.iter().find(|outcome| outcome.failed.is_some()) {
        attempt::ended(&span, failed);
    }
    drop(span);
    subscribed.passes(CrashPoint::BeforeSettlement).await;
    let succeeded = outcomes.iter().all(|outcome| outcome.fate == Fate::Done);
    handler.measured.processed(started, succeeded);
    outcomes
}

/// Settles the messages whose type the handler does not take; gives back the others.
async fn refuse_unknown(subscribed: &Subscribed, batch: Vec<Held>) -> Vec<Held> {
    let mut known = Vec::with_capacity(batch.len());
    for mut held in batch {
        if subscribed.handler_of(&held.incoming).is_some() {
            known.push(held);
            continue;
        }
        let outcome = subscribed.unknown(&held.incoming);
        let verdict = verdict::decide(
            outcome,
            &held.incoming,
            RetryPolicy::NONE,
            &subscribed.environment,
        );
        settle(subscribed, subscribed.first_handler(), &mut held, verdict).await;
    }
    known
}

fn batch_handler(subscribed: &Subscribed) -> Option<(&HandlerRuntime, &BatchFn)> {
    let handler = subscribed.first_handler()?;
    match &handler.handler {
        crate::handling::Handler::Batch(run) => Some((handler, &**run)),
        crate::handling::Handler::One(_) => None,
    }
}
