//! The way of a batch through the engine: each message gets its own verdict, and those that are tried
//! again soon form the next, smaller batch.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::Instrument;

use crate::handling::{BatchFn, Failed, Fate, Outcome};
use crate::messaging::ladder::HELD_WAIT_MAX;
use crate::messaging::{Ack, CrashPoint, RetryPolicy};

use super::attempt;
use super::held::Held;
use super::process::{
    HELD_PAUSE_MAX, Turn, acknowledge, enter, log_pause, publish_outputs, settle, unfinished,
};
use super::subscription::{HandlerRuntime, Subscribed};
use super::verdict::{self, Verdict};

/// One message of a batch.
struct Member {
    held: Held,
    /// Why it is tried again; nothing before its first attempt.
    tried: Option<Box<Failed>>,
}

impl Member {
    fn new(held: Held) -> Self {
        Self { held, tried: None }
    }
}

/// Takes all messages of a batch to their ends.
pub(super) async fn process_batch(
    subscribed: Arc<Subscribed>,
    batch: Vec<Held>,
    mut turn: Turn<'_>,
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
    let batch = refuse_unknown(&subscribed, batch).await;
    let acknowledges_first = subscribed.planned.ack == Ack::OnReceive;
    let stays = acknowledges_first || turn.is_lane();
    let mut batch: Vec<Member> = batch.into_iter().map(Member::new).collect();
    while !batch.is_empty() {
        let gone = || batch.iter().all(|member| member.held.is_lost());
        let Some(leave) = enter(&subscribed, stays, gone).await else {
            return give_up(&subscribed, handler, batch, &turn).await;
        };
        // Of a connection that is gone nothing is started: the broker hands it out again.
        batch.retain(|member| !member.held.is_lost());
        if acknowledges_first {
            batch = acknowledged(&subscribed, batch).await;
        }
        if batch.is_empty() {
            return;
        }
        let outcomes = attempt_once(&subscribed, handler, run, &batch).await;
        let decided: Vec<_> = batch
            .into_iter()
            .zip(outcomes)
            .map(|(Member { held, .. }, outcome)| {
                let environment = &subscribed.environment;
                let verdict = verdict::decide(outcome, &held.incoming, handler.retry, environment);
                (held, verdict)
            })
            .collect();
        leave.end(decided.iter().map(|(_, verdict)| verdict));
        batch = Vec::new();
        let (mut wait, mut pauses) = (Duration::ZERO, false);
        for (mut held, verdict) in decided {
            let (own, failed) = match verdict {
                Verdict::Retry { wait, failed } if wait < HELD_WAIT_MAX || stays => {
                    handler.measured.retried(failed.reason.as_str());
                    let now = subscribed.environment.clock.now();
                    verdict::count_attempt(Arc::make_mut(&mut held.incoming), now);
                    (wait, failed)
                }
                Verdict::Pause { lasting, failed } if lasting <= HELD_PAUSE_MAX || stays => {
                    // What the whole batch asks for is told once.
                    if !std::mem::replace(&mut pauses, true) {
                        log_pause(&subscribed, handler, lasting, &failed);
                    }
                    subscribed.breaker.pause_for(lasting);
                    (lasting, failed)
                }
                verdict => {
                    settle(&subscribed, Some(handler), &mut held, verdict).await;
                    continue;
                }
            };
            wait = wait.max(own);
            let tried = Some(Box::new(failed));
            batch.push(Member { held, tried });
        }
        if batch.is_empty() {
            return subscribed.passes(CrashPoint::AfterSettlement).await;
        }
        let is_acknowledged = batch.iter().all(|member| member.held.is_settled());
        if !turn.wait(&subscribed, wait, is_acknowledged).await {
            return give_up(&subscribed, handler, batch, &turn).await;
        }
    }
}

/// Ends a batch of which nothing more is attempted here.
async fn give_up(
    subscribed: &Subscribed,
    handler: &HandlerRuntime,
    batch: Vec<Member>,
    turn: &Turn<'_>,
) {
    for Member { mut held, tried } in batch {
        unfinished(subscribed, handler, &mut held, turn, tried).await;
    }
}

/// Acknowledges a batch before it is handled; gives back what the broker has taken note of.
async fn acknowledged(subscribed: &Subscribed, batch: Vec<Member>) -> Vec<Member> {
    let mut known = Vec::with_capacity(batch.len());
    for mut member in batch {
        if acknowledge(subscribed, &mut member.held).await {
            known.push(member);
        }
    }
    known
}

async fn attempt_once(
    subscribed: &Subscribed,
    handler: &HandlerRuntime,
    run: &BatchFn,
    batch: &[Member],
) -> Vec<Outcome> {
    subscribed.passes(CrashPoint::BeforeHandler).await;
    let messages: Vec<_> = batch
        .iter()
        .map(|member| Arc::clone(&member.held.incoming))
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
