//! Server-sent events, as the HTML standard describes them.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use http::{HeaderName, HeaderValue, StatusCode};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep};

use crate::message::CodecError;
use crate::resilience::Backoff;

use super::error::{CallError, CallErrorKind, CallFailure, CallName};
use super::read::is_event_stream;
use super::stack::{Prepared, Stack};
use super::stream::ByteStream;

static LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// How long is waited before the stream is asked for again, unless the server says so.
const RETRY: Duration = Duration::from_secs(3);
/// The longest wait that a server may name.
const ASKED_MAX: Duration = Duration::from_secs(300);
/// The longest wait beyond what the server named.
const RETRY_MAX: Duration = Duration::from_secs(30);
/// What is waited at the least beyond that before it doubles, however little the server named.
const GROWS_FROM: Duration = Duration::from_millis(250);
/// How often in a row asking again may fail before the stream ends with the error.
const FAILURES_MAX: u32 = 10;

/// One event of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event {
    /// What kind of event it is: `message` unless the server says so.
    pub event: String,
    /// Its data; several lines are joined by `\n`.
    pub data: String,
    /// The id of the last event that had one, this one included; empty if none had.
    pub id: String,
    /// How long the server wants to be left alone before the stream is asked for again, if it said so
    /// with this event.
    pub retry: Option<Duration>,
}

impl Event {
    /// An event of the kind `message` with this data, for a client that is not on the wire.
    #[must_use]
    pub fn new(data: impl Into<String>) -> Self {
        Self {
            event: "message".to_owned(),
            data: data.into(),
            id: String::new(),
            retry: None,
        }
    }

    /// The data, read as JSON.
    ///
    /// # Errors
    /// Where it is not what `T` is read from.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, CodecError> {
        serde_json::from_str(&self.data).map_err(|error| CodecError::new("json", error.to_string()))
    }
}

/// The events of a server as they come: what a method returns as `Result<EventStream, ..>`.
///
/// Silence longer than `stream_idle_timeout` (30 s) counts as a lost connection, though not as a failure
/// of the instance; servers send comments to prevent that. A stream that breaks or ends is over, unless the method says `#[reconnect]`: then it
/// is asked for again after the time that the server named (3 s), with `Last-Event-ID`, until that has
/// failed ten times in a row, was refused, or was answered 204.
///
/// ```no_run
/// # async fn example(mut events: interline::http::EventStream) -> Result<(), interline::CallError> {
/// while let Some(event) = events.next().await {
///     let event = event?;
///     println!("{}: {}", event.event, event.data);
/// }
/// # Ok(())
/// # }
/// ```
pub struct EventStream {
    state: State,
    parser: Parser,
    again: Option<Again>,
    call: Arc<CallName>,
    failures: u32,
}

enum State {
    Reading(ByteStream),
    Local(Pin<Box<dyn Stream<Item = Result<Event, CallError>> + Send>>),
    Asking(Pin<Box<dyn Future<Output = Result<Option<ByteStream>, CallError>> + Send>>),
    Done,
}

/// What is needed to ask for the stream once more.
#[derive(Clone)]
pub(super) struct Again {
    pub(super) stack: Arc<Stack>,
    pub(super) prepared: Arc<Prepared>,
}

impl EventStream {
    /// A stream of these events, for a client that is not on the wire.
    #[must_use]
    pub fn new(events: impl Stream<Item = Result<Event, CallError>> + Send + 'static) -> Self {
        Self {
            state: State::Local(Box::pin(events)),
            parser: Parser::new(0),
            again: None,
            call: Arc::default(),
            failures: 0,
        }
    }

    pub(super) fn of(bytes: ByteStream, bytes_max: usize, again: Option<Again>) -> Self {
        Self {
            call: bytes.call(),
            state: State::Reading(bytes),
            parser: Parser::new(bytes_max),
            again,
            failures: 0,
        }
    }

    /// The next event; `None` at the end.
    pub async fn next(&mut self) -> Option<Result<Event, CallError>> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// The id from which a stream that breaks now would go on; empty if there is none.
    #[must_use]
    pub fn last_event_id(&self) -> &str {
        &self.parser.id
    }

    /// The connection is gone: asks again, or ends with `error`.
    fn lost(&mut self, error: Option<CallError>) -> Option<Result<Event, CallError>> {
        self.state = State::Done;
        let fatal = error.as_ref().is_some_and(|error| !error.is_retryable());
        let Some(again) = self.again.clone().filter(|_| !fatal) else {
            return error.map(Err);
        };
        self.failures += 1;
        if self.failures > FAILURES_MAX {
            return error.map(Err);
        }
        let asked = self.parser.retry.unwrap_or(RETRY).min(ASKED_MAX);
        // What the server named, and a little more for each of many clients; from then on it grows.
        let rng = &again.stack.environment.rng;
        let first = (asked / 4).max(GROWS_FROM);
        let more = Backoff::new(first, RETRY_MAX).wait(self.failures, rng);
        let wait = asked + more;
        let id = std::mem::take(&mut self.parser.id);
        self.parser = Parser {
            id: id.clone(),
            retry: self.parser.retry,
            ..Parser::new(self.parser.bytes_max)
        };
        self.state = State::Asking(Box::pin(async move {
            sleep(wait).await;
            again.ask(&id).await
        }));
        None
    }
}

impl Again {
    async fn ask(self, id: &str) -> Result<Option<ByteStream>, CallError> {
        let mut prepared = (*self.prepared).clone();
        prepared.deadline = Instant::now() + prepared.decided.timeout;
        if let (false, Ok(id)) = (id.is_empty(), HeaderValue::from_str(id)) {
            prepared.headers.insert(LAST_EVENT_ID.clone(), id);
        }
        let answer = self.stack.call(&prepared).await;
        let mut answer = answer.map_err(|failure| CallError::new(failure, None))?;
        if answer.status == StatusCode::NO_CONTENT {
            return Ok(None);
        }
        if !is_event_stream(&answer.headers) {
            let text = "the answer is no stream of events any more";
            let mut failure = CallFailure::new(CallErrorKind::Decode, &prepared.call, text);
            failure.endpoint = Some(answer.endpoint);
            failure.status = Some(answer.status);
            return Err(CallError::new(Box::new(failure), None));
        }
        let rest = answer.rest.take();
        Ok(Some(
            rest.map_or_else(ByteStream::empty, ByteStream::of_events),
        ))
    }
}

impl Stream for EventStream {
    type Item = Result<Event, CallError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if let Some(event) = this.parser.events.pop_front() {
                return Poll::Ready(Some(Ok(event)));
            }
            match &mut this.state {
                State::Done => return Poll::Ready(None),
                State::Local(events) => {
                    let event = ready!(events.as_mut().poll_next(cx));
                    if event.is_none() {
                        this.state = State::Done;
                    }
                    return Poll::Ready(event);
                }
                State::Reading(bytes) => match ready!(Pin::new(bytes).poll_next(cx)) {
                    Some(Ok(piece)) => {
                        this.failures = 0;
                        if let Err(text) = this.parser.feed(&piece) {
                            this.state = State::Done;
                            let failure =
                                CallFailure::new(CallErrorKind::TooLarge, &this.call, text);
                            let error = CallError::new(Box::new(failure), None);
                            return Poll::Ready(Some(Err(error)));
                        }
                    }
                    Some(Err(error)) => {
                        if let Some(end) = this.lost(Some(error)) {
                            return Poll::Ready(Some(end));
                        }
                    }
                    None => {
                        if let Some(end) = this.lost(None) {
                            return Poll::Ready(Some(end));
                        }
                    }
                },
                State::Asking(answer) => match ready!(answer.as_mut().poll(cx)) {
                    Ok(Some(bytes)) => this.state = State::Reading(bytes),
                    Ok(None) => this.state = State::Done,
                    Err(error) => {
                        if let Some(end) = this.lost(Some(error)) {
                            return Poll::Ready(Some(end));
                        }
                    }
                },
            }
        }
    }
}

impl fmt::Debug for EventStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStream")
            .field("last_event_id", &self.parser.id)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Again {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Again").finish_non_exhaustive()
    }
}

/// Makes events of bytes, however they are cut.
struct Parser {
    bytes_max: usize,
    /// The line that is not complete yet.
    line: Vec<u8>,
    /// A `\n` that comes now belongs to the `\r` before.
    after_cr: bool,
    begun: bool,
    event: String,
    data: Option<String>,
    id: String,
    /// That of the event which is not complete yet.
    id_of_this: Option<String>,
    retry: Option<Duration>,
    retry_of_this: Option<Duration>,
    events: VecDeque<Event>,
}

impl Parser {
    fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            line: Vec::new(),
            after_cr: false,
            begun: false,
            event: String::new(),
            data: None,
            id: String::new(),
            id_of_this: None,
            retry: None,
            retry_of_this: None,
            events: VecDeque::new(),
        }
    }

    fn feed(&mut self, piece: &Bytes) -> Result<(), String> {
        for byte in piece {
            match byte {
                b'\n' if self.after_cr => self.after_cr = false,
                b'\n' | b'\r' => {
                    self.after_cr = *byte == b'\r';
                    let line = std::mem::take(&mut self.line);
                    self.read(&line);
                }
                _ => {
                    self.after_cr = false;
                    self.line.push(*byte);
                }
            }
            let held = self.line.len() + self.data.as_ref().map_or(0, String::len);
            if held > self.bytes_max {
                let max = self.bytes_max;
                return Err(format!(
                    "an event is longer than {max} bytes (`response_bytes_max`)"
                ));
            }
        }
        Ok(())
    }

    fn read(&mut self, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        let mut line = &*line;
        if !self.begun {
            self.begun = true;
            line = line.strip_prefix('\u{feff}').unwrap_or(line);
        }
        if line.is_empty() {
            self.end();
            return;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.event),
            "data" => match &mut self.data {
                None => self.data = Some(value.to_owned()),
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
            },
            "id" if !value.contains('\0') => self.id_of_this = Some(value.to_owned()),
            "retry" if value.bytes().all(|byte| byte.is_ascii_digit()) => {
                if let Ok(millis) = value.parse() {
                    self.retry_of_this = Some(Duration::from_millis(millis));
                    self.retry = self.retry_of_this;
                }
            }
            // Comments, and what the standard does not know.
            _ => {}
        }
    }

    fn end(&mut self) {
        let event = std::mem::take(&mut self.event);
        let retry = self.retry_of_this.take();
        // Not before: one that is cut off has to come again.
        if let Some(id) = self.id_of_this.take() {
            self.id = id;
        }
        let Some(data) = self.data.take() else {
            return;
        };
        self.events.push_back(Event {
            event: if event.is_empty() {
                "message".to_owned()
            } else {
                event
            },
            data,
            id: self.id.clone(),
            retry,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pieces: &[&str]) -> Vec<Event> {
        let mut parser = Parser::new(1_000);
        for piece in pieces {
            parser
                .feed(&Bytes::copy_from_slice(piece.as_bytes()))
                .unwrap();
        }
        parser.events.into()
    }

    #[test]
    fn an_event_that_is_cut_off_comes_again() {
        let mut parser = Parser::new(1_000);
        let text = "id: 7\ndata: a\n\nid: 8\ndata: hal";
        parser.feed(&Bytes::from_static(text.as_bytes())).unwrap();
        assert_eq!((parser.events.len(), parser.id.as_str()), (1, "7"));
    }

    #[test]
    fn events_are_the_same_however_they_are_cut() {
        let text = "\u{feff}: a comment\r\nid: 7\r\nevent: added\r\ndata: first\r\ndata:second\r\n\r\n\
                    retry: 250\ndata\n\nid\ndata:  x\r\revent: no data\n\nbogus: y\ndata: cut off";
        let whole = parse(&[text]);
        let event = |event: &str, data: &str, id: &str, retry: Option<u64>| Event {
            event: event.to_owned(),
            data: data.to_owned(),
            id: id.to_owned(),
            retry: retry.map(Duration::from_millis),
        };
        assert_eq!(
            whole,
            [
                event("added", "first\nsecond", "7", None),
                event("message", "", "7", Some(250)),
                event("message", " x", "", None),
            ]
        );
        let letters: Vec<String> = text.chars().map(String::from).collect();
        let letters: Vec<&str> = letters.iter().map(|letter| &**letter).collect();
        assert_eq!(parse(&letters), whole);
    }

    #[test]
    fn an_event_without_an_end_is_given_up() {
        let mut parser = Parser::new(10);
        let error = parser
            .feed(&Bytes::from_static(b"data: 0123456789"))
            .unwrap_err();
        assert!(error.contains("longer than 10 bytes"), "{error}");
    }
}
