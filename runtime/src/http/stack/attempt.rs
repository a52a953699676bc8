//! One attempt at one endpoint.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tokio::time::{Instant, timeout_at};

use crate::resilience::Signal;

use super::super::error::{CallErrorKind, CallFailure, Sent, may_be_repeated};
use super::super::judge::Judged;
use super::super::pool::{Held, Lease};
use super::super::retry_after;
use super::super::stream::Rest;
use super::super::transport::Incoming;
use super::Stack;
use super::classify::{Verdict, of_transport};
use super::request::{Answer, Prepared};

/// What came of an attempt; of a failed one also what that means for the next.
pub(super) type Attempted = Result<Answer, Box<(CallFailure, Verdict)>>;

impl Stack {
    /// Tries once, from `now` on until what is `now` then.
    pub(super) async fn attempt(
        &self,
        prepared: &Prepared,
        lease: Lease<'_>,
        attempt: u32,
        now: &mut Instant,
    ) -> Attempted {
        let begun = *now;
        let limit = prepared.decided.attempt_timeout;
        // Longer than the clock goes is no limit.
        let until = limit.and_then(|limit| begun.checked_add(limit));
        let until = until.map_or(prepared.deadline, |until| prepared.deadline.min(until));
        let outgoing = prepared.outgoing(lease.target, attempt, until - begun);
        let endpoint = Arc::clone(&lease.target.url);
        let result = timeout_at(until, lease.target.transport.send(outgoing)).await;
        *now = Instant::now();
        let (result, signal) = match result {
            Err(_) => {
                let took = now.saturating_duration_since(begun);
                (Err(too_late(prepared, until, took)), Signal::Failure)
            }
            Ok(Err(error)) => {
                let (failure, verdict, signal) = of_transport(&prepared.call, error);
                (Err((failure, verdict)), signal)
            }
            Ok(Ok(mut incoming)) => {
                let signal = self.settings.judge.signal(&Judged {
                    status: incoming.status,
                    headers: &incoming.headers,
                    body: &incoming.body,
                });
                let result = if is_fine(prepared, incoming.status) {
                    if let Some(body) = incoming.rest.take() {
                        let rest = self.rest(prepared, body, lease.hold(*now), attempt);
                        let answer = self.answer(incoming, endpoint, attempt);
                        return Ok(Answer {
                            rest: Some(rest),
                            ..answer
                        });
                    }
                    Ok(self.answer(incoming, Arc::clone(&endpoint), attempt))
                } else {
                    Err(self.refused(prepared, incoming))
                };
                (result, signal)
            }
        };
        let result = result.map_err(|(mut failure, verdict)| {
            failure.endpoint = Some(endpoint);
            (failure, verdict)
        });
        let left_alone = result
            .as_ref()
            .err()
            .and_then(|(failure, _)| failure.retry_after);
        lease.record(signal, left_alone, *now);
        result.map_err(Box::new)
    }

    fn refused(&self, prepared: &Prepared, incoming: Incoming) -> (CallFailure, Verdict) {
        let verdict = if may_be_repeated(incoming.status) {
            Verdict::Retryable
        } else {
            Verdict::Final
        };
        let text = format!("answered {}", incoming.status);
        let mut failure = CallFailure::new(CallErrorKind::Status, &prepared.call, text);
        failure.sent = Sent::Yes;
        let wall = self.environment.clock.now();
        failure.retry_after = retry_after::read(&incoming.headers, wall);
        failure.status = Some(incoming.status);
        failure.headers = incoming.headers;
        (failure.with_body(incoming.body), verdict)
    }

    fn rest(
        &self,
        prepared: &Prepared,
        body: reqwest::Body,
        endpoint: Held,
        attempts: u32,
    ) -> Rest {
        Rest {
            body,
            call: Arc::clone(&prepared.call),
            endpoint: endpoint.url(),
            attempts,
            idle: self.settings.stream_idle_timeout,
            may_be_quiet: false,
            silence: None,
            endpoint_is_busy: endpoint,
            // Until it is known that the answer is that of the call.
            call_goes_on: None,
        }
    }

    fn answer(&self, incoming: Incoming, endpoint: Arc<str>, attempts: u32) -> Answer {
        Answer {
            status: incoming.status,
            headers: incoming.headers,
            body: incoming.body,
            endpoint,
            attempts,
            rest: None,
            again: None,
            bytes_max: self.settings.response_bytes_max,
        }
    }
}

/// No answer until then.
fn too_late(prepared: &Prepared, until: Instant, took: Duration) -> (CallFailure, Verdict) {
    let text = format!("no answer within {} ms", took.as_millis());
    let mut failure = CallFailure::new(CallErrorKind::Timeout, &prepared.call, text);
    failure.sent = Sent::Maybe;
    let verdict = if until < prepared.deadline {
        Verdict::Retryable
    } else {
        Verdict::Final
    };
    (failure, verdict)
}

fn is_fine(prepared: &Prepared, status: StatusCode) -> bool {
    status.is_success()
        || prepared.not_found_is_fine && status == StatusCode::NOT_FOUND
        || prepared.not_modified_is_fine && status == StatusCode::NOT_MODIFIED
}
