//! The way of one message through the engine: attempts until a verdict, then the settlement.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep};
use tracing::Instrument;

use crate::handling::{Failed, Fate, Handler, Outcome, PublishErrorKind, Reason, describe};
use crate::message::Incoming;
use crate::messaging::ladder::{self, HELD_WAIT_MAX};
use crate::messaging::{Ack, BrokerError, CrashPoint, RetryPolicy, Settled};

use super::attempt;
use super::breaker::Leave;
use super::crew::Crew;
use super::faults;
use super::held::Held;
use super::subscription::{HandlerRuntime, Subscribed};
use super::verdict::{self, Verdict};

/// Longest pause that a message waits out in the process; for a longer one it waits on the broker.
pub(super) const HELD_PAUSE_MAX: Duration = Duration::from_secs(60);

/// How a message keeps its turn.
pub(super) enum Turn<'a> {
    /// Among many: the place is free for others while the message waits.
    Place {
        permit: Option<OwnedSemaphorePermit>,
        places: Arc<Semaphore>,
    },
    /// The place of one of a crew: another one may be at work while the message waits.
    OfCrew {
        permit: Option<OwnedSemaphorePermit>,
        crew: &'a Arc<Crew>,
    },
    /// In a lane: what comes after it waits with it.
    Lane,
}

impl<'a> Turn<'a> {
    pub(super) fn place(permit: OwnedSemaphorePermit, places: Arc<Semaphore>) -> Self {
        Self::Place {
            permit: Some(permit),
            places,
        }
    }

    pub(super) fn of_crew(permit: OwnedSemaphorePermit, crew: &'a Arc<Crew>) -> Self {
        Self::OfCrew {
            permit: Some(permit),
            crew,
        }
    }

    /// The place, where it was not lost on the way.
    pub(super) fn into_permit(self) -> Option<OwnedSemaphorePermit> {
        match self {
            Self::Place { permit, .. } | Self::OfCrew { permit, .. } => permit,
            Self::Lane => None,
        }
    }

    pub(super) fn is_lane(&self) -> bool {
        matches!(self, Self::Lane)
    }

    /// Waits; `false` if the subscription is to drain meanwhile. What the broker counts as out makes room for
    /// others; what is acknowledged already keeps its place, or as many as come would wait here.
    pub(super) async fn wait(
        &mut self,
        subscribed: &Subscribed,
        wait: Duration,
        is_acknowledged: bool,
    ) -> bool {
        let (place, crew) = match self {
            _ if is_acknowledged => (None, None),
            Self::Place { permit, places } => (Some((permit, &*places)), None),
            Self::OfCrew { permit, crew } => (Some((permit, crew.places())), Some(*crew)),
            Self::Lane => (None, None),
        };
        let place = place.map(|(permit, places)| {
            drop(permit.take());
            (permit, places)
        });
        let absence = crew.map(Crew::leave_for_a_while);
        let waited = async {
            sleep(wait).await;
            drop(absence);
            if let Some((permit, places)) = place {
                // The semaphore is never closed; without a place the message would run beside the
                // limit.
                *permit = Arc::clone(places).acquire_owned().await.ok();
            }
        };
        tokio::select! {
            biased;
            () = subscribed.draining() => false,
            () = waited => true,
        }
    }
}

/// Takes a message to its end: handled, dead-lettered, dropped, or back with the broker.
pub(super) async fn process(subscribed: &Subscribed, mut held: Held, turn: &mut Turn<'_>) {
    if held.incoming.redelivered {
        subscribed.redelivered.record(1.0);
    }
    if let Some(left) = verdict::early(&held.incoming, &subscribed.environment) {
        let attempt = held.incoming.attempt;
        return Box::pin(wait_on_broker(subscribed, &mut held, attempt, left)).await;
    }
    let acknowledges_first = subscribed.planned.ack == Ack::OnReceive;
    // What is in a lane keeps its place in the order, and what is acknowledged cannot go back.
    let stays = acknowledges_first || turn.is_lane();
    let mut tried: Option<Box<Failed>> = None;
    loop {
        // Of a connection that is gone nothing is started: the broker hands it out again.
        if held.is_lost() {
            return forget_stale(subscribed, &mut held);
        }
        let Some(handler) = subscribed.handler_of(&held.incoming) else {
            let verdict = verdict::decide(
                subscribed.unknown(&held.incoming),
                &held.incoming,
                RetryPolicy::NONE,
                &subscribed.environment,
            );
            let first = subscribed.first_handler();
            return Box::pin(settle(subscribed, first, &mut held, verdict)).await;
        };
        if handler.replies {
            let now = subscribed.environment.clock.now();
            if faults::has_expired(handler, &held.incoming, now) {
                return Box::pin(drop_expired(subscribed, handler, &mut held)).await;
            }
        }
        let leave = match subscribed.breaker.at_once() {
            Some(leave) => leave,
            None => match Box::pin(enter(subscribed, stays, || held.is_lost())).await {
                Some(leave) => leave,
                None => {
                    let unfinished = unfinished(subscribed, handler, &mut held, turn, tried);
                    return Box::pin(unfinished).await;
                }
            },
        };
        // Not before it may begin: what waits for the breaker can still go back.
        if acknowledges_first && !held.is_settled() && !acknowledge(subscribed, &mut held).await {
            return;
        }
        let verdict = attempt_once(subscribed, handler, &held).await;
        leave.end([&verdict]);
        // The common way is short; the others are boxed, so that it stays so.
        let (wait, failed) = match verdict {
            Verdict::Done => {
                if let Some(settlement) = held.take() {
                    report(subscribed, "acknowledging", settlement.done().await);
                }
                return subscribed.passes(CrashPoint::AfterSettlement).await;
            }
            Verdict::Retry { wait, failed } if wait < HELD_WAIT_MAX || stays => {
                log_retry(subscribed, handler, &held.incoming, wait, &failed);
                let now = subscribed.environment.clock.now();
                verdict::count_attempt(Arc::make_mut(&mut held.incoming), now);
                (wait, failed)
            }
            Verdict::Pause { lasting, failed } if lasting <= HELD_PAUSE_MAX || stays => {
                log_pause(subscribed, handler, lasting, &failed);
                subscribed.breaker.pause_for(lasting);
                (lasting, failed)
            }
            verdict => {
                Box::pin(settle(subscribed, Some(handler), &mut held, verdict)).await;
                return subscribed.passes(CrashPoint::AfterSettlement).await;
            }
        };
        let failed = Box::new(failed);
        if !Box::pin(turn.wait(subscribed, wait, held.is_settled())).await {
            let unfinished = unfinished(subscribed, handler, &mut held, turn, Some(failed));
            return Box::pin(unfinished).await;
        }
        tried = Some(failed);
    }
}

/// Waits for leave to make an attempt; `None` if there is none to be made here: the breaker is open and
/// the message does not stay, the subscription drains, or the connection is gone.
pub(super) async fn enter(
    subscribed: &Subscribed,
    stays: bool,
    gone: impl Fn() -> bool,
) -> Option<Leave> {
    let leave = tokio::select! {
        biased;
        leave = subscribed.breaker.enter(stays, &gone) => leave?,
        () = subscribed.draining() => return None,
    };
    // Meanwhile much can have happened.
    (!gone()).then_some(leave)
}

/// Acknowledges a message before it is handled. `false` if the broker does not know it: then it hands
/// the message out again, and handling it here would be once too often.
pub(super) async fn acknowledge(subscribed: &Subscribed, held: &mut Held) -> bool {
    let Some(settlement) = held.take() else {
        return true;
    };
    let settled = settlement.done().await;
    let known = matches!(settled, Ok(Settled::Yes));
    report(subscribed, "acknowledging", settled);
    known
}

/// One attempt, with what it sent confirmed: an output that fails is a failed attempt.
async fn attempt_once(subscribed: &Subscribed, handler: &HandlerRuntime, held: &Held) -> Verdict {
    subscribed.passes(CrashPoint::BeforeHandler).await;
    handler.measured.consumed.record(1.0);
    let started = Instant::now();
    let (mut outcome, span) = match &handler.handler {
        Handler::One(run) => {
            attempt::run_one(subscribed, handler, &**run, &held.incoming, started).await
        }
        Handler::Batch(run) => {
            let message = std::slice::from_ref(&held.incoming);
            let running = Box::pin(attempt::run_batch(handler, &**run, message));
            let (mut outcomes, span) = running.await;
            let outcome = outcomes.pop();
            (
                outcome.unwrap_or_else(|| Outcome::retry("the batch handler gave no outcome")),
                span,
            )
        }
    };
    subscribed.passes(CrashPoint::BeforeOutputs).await;
    if !outcome.outgoing.is_empty() {
        let publishing = publish_outputs(subscribed, &mut outcome).instrument(span.clone());
        Box::pin(publishing).await;
    }
    attempt::ended(&span, &outcome);
    drop(span);
    subscribed.passes(CrashPoint::BeforeSettlement).await;
    handler
        .measured
        .processed(started, outcome.fate == Fate::Done);
    verdict::decide(
        outcome,
        &held.incoming,
        handler.retry,
        &subscribed.environment,
    )
}

/// Publishes what a successful attempt sent, and waits for every confirmation.
pub(super) async fn publish_outputs(subscribed: &Subscribed, outcome: &mut Outcome) {
    if outcome.fate != Fate::Done {
        return;
    }
    for outgoing in std::mem::take(&mut outcome.outgoing) {
        let is_reply = outgoing.address.is_some();
        if let Err(error) = subscribed.environment.publishing.publish(outgoing).await {
            let (reason, fate) = match error.kind() {
                // An address that leads nowhere, and will not on the next attempt.
                PublishErrorKind::Unsupported if is_reply => {
                    let label = &**subscribed.label();
                    tracing::warn!(subscription = label, error = %describe(&error), "a reply was dropped");
                    continue;
                }
                PublishErrorKind::Unsupported => (Reason::OutputFailed, Fate::DeadLetter),
                PublishErrorKind::Unroutable => {
                    (Reason::OutputUnroutable, Fate::Retry { after: None })
                }
                _ => (Reason::OutputFailed, Fate::Retry { after: None }),
            };
            let failed = Failed::new(reason, "PublishError", describe(&error));
            *outcome = Outcome::failed(fate, failed);
            return;
        }
    }
}

/// Carries a verdict out.
pub(super) async fn settle(
    subscribed: &Subscribed,
    handler: Option<&HandlerRuntime>,
    held: &mut Held,
    verdict: Verdict,
) {
    let name = handler.map_or("-", |handler| &*handler.name);
    let label = &**subscribed.label();
    let id = held.incoming.id.clone();
    match verdict {
        Verdict::Done => {
            let Some(settlement) = held.take() else {
                return;
            };
            report(subscribed, "acknowledging", settlement.done().await);
        }
        Verdict::Discard(failed) => {
            tracing::debug!(subscription = label, subscriber = name, %id, reason = %failed.reason, error = failed.text, "message discarded");
            if let Some(handler) = handler {
                handler.measured.discarded.record(1.0);
                faults::tell(subscribed, handler, &held.incoming, &failed).await;
            }
            let Some(settlement) = held.take() else {
                return;
            };
            report(subscribed, "acknowledging", settlement.done().await);
        }
        Verdict::DeadLetter(failed) => dead_letter(subscribed, handler, held, &failed).await,
        Verdict::Retry { wait, failed } => {
            if let Some(handler) = handler {
                log_retry(subscribed, handler, &held.incoming, wait, &failed);
            }
            let next = held.incoming.attempt.saturating_add(1);
            wait_on_broker(subscribed, held, next, wait).await;
        }
        Verdict::Pause { lasting, failed } => {
            if let Some(handler) = handler {
                log_pause(subscribed, handler, lasting, &failed);
            }
            subscribed.breaker.pause_for(lasting);
            let attempt = held.incoming.attempt;
            wait_on_broker(subscribed, held, attempt, lasting).await;
        }
    }
}

async fn dead_letter(
    subscribed: &Subscribed,
    handler: Option<&HandlerRuntime>,
    held: &mut Held,
    failed: &Failed,
) {
    let (service, name) = handler.map_or(("-", "-"), |handler| (&*handler.service, &*handler.name));
    let label = &**subscribed.label();
    let incoming = Arc::clone(&held.incoming);
    if let Some(handler) = handler {
        handler.measured.dead_lettered(failed.reason.as_str());
        faults::tell(subscribed, handler, &incoming, failed).await;
    }
    let Some(settlement) = held.take() else {
        tracing::warn!(subscription = label, subscriber = name, id = %incoming.id, reason = %failed.reason, error = failed.text, "message failed after it was acknowledged, so it is lost");
        return;
    };
    let keep = subscribed.planned.subscription.dead_letter;
    tracing::warn!(subscription = label, subscriber = name, id = %incoming.id, attempts = incoming.attempt, reason = %failed.reason, error = failed.text, kept = keep, "message given up");
    let settled = if keep {
        let now = subscribed.environment.clock.now();
        let headers = verdict::dead_letter_headers(
            &incoming,
            failed,
            &subscribed.planned.subscription,
            (service, name),
            now,
        );
        settlement.dead_letter(incoming, headers).await
    } else {
        settlement.done().await
    };
    report(subscribed, "dead-lettering", settled);
}

/// Hands a message to the broker until its next attempt is due.
async fn wait_on_broker(subscribed: &Subscribed, held: &mut Held, attempt: u32, wait: Duration) {
    let Some(settlement) = held.take() else {
        return;
    };
    let now = subscribed.environment.clock.now();
    let headers = verdict::retry_headers(&held.incoming, attempt, wait, now);
    let rung = ladder::rung(&subscribed.planned.subscription.ladder, wait);
    let settled = settlement
        .retry(Arc::clone(&held.incoming), rung, headers)
        .await;
    report(subscribed, "delaying", settled);
}

/// Ends a message here that is not finished: nothing more is attempted. One that was not `tried` goes
/// back as it came when it is dropped. Else it goes through the first delay, which keeps the count of
/// its attempts; from a lane it goes back to its place in the order. What is acknowledged cannot go
/// back, and is lost for the reason for which it was `tried` again.
pub(super) async fn unfinished(
    subscribed: &Subscribed,
    handler: &HandlerRuntime,
    held: &mut Held,
    turn: &Turn<'_>,
    tried: Option<Box<Failed>>,
) {
    let Some(failed) = tried else { return };
    if held.is_settled() {
        dead_letter(subscribed, Some(handler), held, &failed).await;
    } else if !turn.is_lane() {
        let attempt = held.incoming.attempt;
        wait_on_broker(subscribed, held, attempt, HELD_WAIT_MAX).await;
    }
}

/// A request whose deadline has passed: nobody waits for the reply, so nobody does the work.
async fn drop_expired(subscribed: &Subscribed, handler: &HandlerRuntime, held: &mut Held) {
    let label = &**subscribed.label();
    tracing::debug!(subscription = label, subscriber = &*handler.name, id = %held.incoming.id, "request dropped: its deadline has passed");
    handler.measured.expired_requests.record(1.0);
    if let Some(settlement) = held.take() {
        report(subscribed, "acknowledging", settlement.done().await);
    }
}

/// A delivery of a connection that is gone: neither handled nor given back.
fn forget_stale(subscribed: &Subscribed, held: &mut Held) {
    drop(held.take());
    tracing::debug!(subscription = &**subscribed.label(), id = %held.incoming.id, "delivery of a lost connection dropped; the broker hands it out again");
}

/// A settlement that failed loses nothing: the broker still has the message.
pub(super) fn report(subscribed: &Subscribed, doing: &str, settled: Result<Settled, BrokerError>) {
    if let Err(error) = settled {
        let label = &**subscribed.label();
        tracing::warn!(subscription = label, error = %describe(&error), "{doing} failed; the broker hands the message out again");
    }
}

fn log_retry(
    subscribed: &Subscribed,
    handler: &HandlerRuntime,
    incoming: &Incoming,
    wait: Duration,
    failed: &Failed,
) {
    handler.measured.retried(failed.reason.as_str());
    tracing::info!(subscription = &**subscribed.label(), subscriber = &*handler.name, id = %incoming.id, attempt = incoming.attempt, of = handler.retry.attempts, ?wait, reason = %failed.reason, error = failed.text, "attempt failed, trying again");
}

pub(super) fn log_pause(
    subscribed: &Subscribed,
    handler: &HandlerRuntime,
    lasting: Duration,
    failed: &Failed,
) {
    tracing::warn!(
        subscription = &**subscribed.label(),
        subscriber = &*handler.name,
        ?lasting,
        error = failed.text,
        "subscription paused by its handler"
    );
}
