//! The body of an answer on its way.

use std::error::Error;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, sleep_until};

use crate::clock::later;
use crate::handling::BoxFuture;

use super::answer::{End, Reply};
use super::carrier::Lost;
use super::flight::Flight;
use super::instance::Life;

type Failure = Box<dyn Error + Send + Sync>;
type Next = BoxFuture<'static, (Result<Bytes, Lost>, State)>;

/// A body that comes in pieces, each after its wait, and ends as its reply says. It comes whether or not
/// somebody reads it.
pub(super) struct Pieces {
    /// Behind a lock that nobody else takes, because futures are not shared.
    step: Mutex<Step>,
    length: Option<u64>,
}

enum Step {
    /// Boxed: it is moved at every piece.
    At(Box<State>),
    Waiting(Next),
    Done,
}

struct State {
    reply: Reply,
    sent: usize,
    /// When the last piece came.
    due: Instant,
    life: Life,
    /// `None` where the answer is not waited for.
    flight: Option<Flight>,
}

impl Pieces {
    pub(super) fn new(reply: Reply, life: Life, flight: Option<Flight>) -> Self {
        let pieces = reply.pieces.iter();
        let length: usize = pieces.map(|(_, piece)| piece.len()).sum();
        let whole = reply.pieces.iter().all(|(wait, _)| wait.is_zero());
        let step = match reply.pieces.is_empty() {
            true => Step::Done,
            false => Step::At(Box::new(State {
                reply,
                sent: 0,
                due: Instant::now(),
                life,
                flight,
            })),
        };
        Self {
            step: Mutex::new(step),
            // What is sent while it is made has no length.
            length: whole.then_some(length as u64),
        }
    }
}

impl State {
    /// The next piece, when its time has come; `None` at the end.
    fn next(mut self) -> Option<Next> {
        let limit = match self.reply.end {
            End::Complete => usize::MAX,
            End::BreaksOff(bytes) | End::Stalls(bytes) => bytes,
        };
        let left = limit - self.sent;
        let (wait, piece) = if left > 0 {
            let (wait, mut piece) = self.reply.pieces.pop_front()?;
            piece.truncate(left);
            self.sent += piece.len();
            (Some(wait), Ok(piece))
        } else {
            let text = format!("connection reset after {limit} bytes of the body");
            let breaks_off = self.reply.end == End::BreaksOff(limit);
            (breaks_off.then_some(Duration::ZERO), Err(Lost(text)))
        };
        // From when the last one came, not from when somebody asks: a slow reader finds it there.
        let due = wait.map(|wait| later(self.due, wait));
        self.due = due.unwrap_or(self.due);
        Some(Box::pin(async move {
            let Self { life, flight, .. } = &mut self;
            let result = tokio::select! {
                biased;
                lost = life.lost() => Err(lost),
                () = pause(flight.as_ref(), due) => piece,
            };
            (result, self)
        }))
    }
}

/// Waits until then, or for ever.
async fn pause(flight: Option<&Flight>, due: Option<Instant>) {
    match (flight, due) {
        (Some(flight), Some(due)) => flight.wait_until(due).await,
        (Some(flight), None) => match flight.wait_for_ever().await {},
        (None, Some(due)) if due <= Instant::now() => {}
        (None, Some(due)) => sleep_until(due).await,
        (None, None) => std::future::pending().await,
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let step = &mut self.step;
        let step = step.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Step::At(_) = step
            && let Step::At(state) = std::mem::replace(step, Step::Done)
        {
            let Some(next) = state.next() else {
                return Poll::Ready(None);
            };
            *step = Step::Waiting(next);
        }
        let Step::Waiting(next) = step else {
            return Poll::Ready(None);
        };
        let (piece, state) = ready!(next.as_mut().poll(cx));
        let piece = match piece {
            Ok(piece) => {
                *step = Step::At(Box::new(state));
                Ok(Frame::data(piece))
            }
            Err(lost) => {
                *step = Step::Done;
                Err(lost.0.into())
            }
        };
        Poll::Ready(Some(piece))
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = SizeHint::default();
        if let Some(length) = self.length {
            hint = SizeHint::with_exact(length);
        }
        hint
    }
}
