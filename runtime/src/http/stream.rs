//! An answer in pieces, as they come.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use http_body::Body as _;
use tokio::time::{Instant, Sleep, sleep};

use crate::resilience::{CircuitPermit, Signal};

use super::error::{CallError, CallErrorKind, CallFailure, CallName, Sent};
use super::places::Place;
use super::pool::Held;
use super::transport::Cause;

/// The bytes of an answer as they come: what a method returns as `Result<ByteStream, ..>`.
///
/// The deadline of the call is that of the answer's beginning; from then on each piece has to come
/// within `stream_idle_timeout` (30 s), and there is no limit on all of them. A stream that breaks, or in
/// which nothing comes for longer, is a failure of the instance and of the service, and is not repeated:
/// it ends with an error of the kind [`ConnectionLost`](CallErrorKind::ConnectionLost) or
/// [`Timeout`](CallErrorKind::Timeout). The time in which nobody asks for the next piece does not count
/// as long as one is there. Dropped, it ends the request. Until then it is one of the calls that run at once.
///
/// ```no_run
/// # async fn example(mut picture: interline::http::ByteStream) -> Result<(), interline::CallError> {
/// while let Some(piece) = picture.next().await {
///     println!("{} bytes", piece?.len());
/// }
/// # Ok(())
/// # }
/// ```
pub struct ByteStream(Source);

enum Source {
    Wire(Box<Rest>),
    Local(Pin<Box<dyn Stream<Item = Result<Bytes, CallError>> + Send>>),
    Done,
}

/// What is still to come of an answer that has begun.
pub(super) struct Rest {
    pub(super) body: reqwest::Body,
    pub(super) call: Arc<CallName>,
    pub(super) endpoint: Arc<str>,
    pub(super) attempts: u32,
    pub(super) idle: Duration,
    /// Whether one who is silent for longer than that has failed: events come when they happen, and bytes
    /// have a reader who waits for them.
    pub(super) may_be_quiet: bool,
    /// Counts while nothing comes.
    pub(super) silence: Option<Pin<Box<Sleep>>>,
    pub(super) endpoint_is_busy: Held,
    pub(super) call_goes_on: Option<Ongoing>,
}

/// What a call has taken until the whole answer has come.
pub(super) struct Ongoing {
    permit: Option<CircuitPermit>,
    _place: Place,
}

impl Ongoing {
    /// The answer began at `now`.
    pub(super) fn new(place: Place, permit: Option<CircuitPermit>, now: Instant) -> Self {
        Self {
            permit: permit.and_then(|permit| permit.answered(now)),
            _place: place,
        }
    }
}

impl Drop for Ongoing {
    fn drop(&mut self) {
        // As far as somebody wanted to read it, it was right.
        if let Some(permit) = self.permit.take() {
            permit.record(Signal::Success, Instant::now());
        }
    }
}

impl fmt::Debug for Rest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rest").finish_non_exhaustive()
    }
}

impl ByteStream {
    /// A stream of these pieces, for a client that is not on the wire.
    #[must_use]
    pub fn new(pieces: impl Stream<Item = Result<Bytes, CallError>> + Send + 'static) -> Self {
        Self(Source::Local(Box::pin(pieces)))
    }

    pub(super) fn of(rest: Rest) -> Self {
        Self(Source::Wire(Box::new(rest)))
    }

    /// One of events, between which it may be quiet.
    pub(super) fn of_events(mut rest: Rest) -> Self {
        rest.may_be_quiet = true;
        Self::of(rest)
    }

    /// The call that it answers.
    pub(super) fn call(&self) -> Arc<CallName> {
        match &self.0 {
            Source::Wire(rest) => Arc::clone(&rest.call),
            Source::Local(_) | Source::Done => Arc::default(),
        }
    }

    /// Nothing comes.
    pub(super) fn empty() -> Self {
        Self(Source::Done)
    }

    /// The next piece; `None` at the end.
    pub async fn next(&mut self) -> Option<Result<Bytes, CallError>> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }
}

impl Stream for ByteStream {
    type Item = Result<Bytes, CallError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let piece = match &mut self.0 {
            Source::Wire(rest) => ready!(rest.poll(cx)),
            Source::Local(pieces) => ready!(pieces.as_mut().poll_next(cx)),
            Source::Done => None,
        };
        if !matches!(piece, Some(Ok(_))) {
            self.0 = Source::Done;
        }
        Poll::Ready(piece)
    }
}

impl Rest {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, CallError>>> {
        loop {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(frame) => {
                    self.silence = None;
                    let piece = match frame {
                        None => None,
                        Some(Ok(frame)) => match frame.into_data() {
                            Ok(data) if data.is_empty() => continue,
                            Ok(data) => Some(Ok(data)),
                            // Trailers.
                            Err(_) => continue,
                        },
                        Some(Err(error)) => {
                            self.broke();
                            let cause = Cause::of(&error);
                            let text = format!("the connection was lost: {cause}");
                            Some(Err(self.failure(CallErrorKind::ConnectionLost, text)))
                        }
                    };
                    return Poll::Ready(piece);
                }
                Poll::Pending => {
                    let idle = self.idle;
                    let silence = self.silence.get_or_insert_with(|| Box::pin(sleep(idle)));
                    ready!(silence.as_mut().poll(cx));
                    if !self.may_be_quiet {
                        self.broke();
                    }
                    let text = format!(
                        "nothing more of the answer came within {} ms (`stream_idle_timeout`)",
                        idle.as_millis()
                    );
                    let failure = self.failure(CallErrorKind::Timeout, text);
                    return Poll::Ready(Some(Err(failure)));
                }
            }
        }
    }

    /// The answer ends before its end, which is a failure of whoever gave it.
    fn broke(&mut self) {
        let now = Instant::now();
        self.endpoint_is_busy.broke(now);
        let ongoing = self.call_goes_on.as_mut();
        if let Some(permit) = ongoing.and_then(|ongoing| ongoing.permit.take()) {
            permit.record(Signal::Failure, now);
        }
    }

    fn failure(&self, kind: CallErrorKind, text: String) -> CallError {
        let mut failure = CallFailure::new(kind, &self.call, text);
        failure.endpoint = Some(Arc::clone(&self.endpoint));
        failure.attempts = self.attempts;
        failure.sent = Sent::Yes;
        CallError::new(Box::new(failure), None)
    }
}

impl fmt::Debug for ByteStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByteStream").finish_non_exhaustive()
    }
}
