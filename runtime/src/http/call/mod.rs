//! One call, from its parts to what it gives.

mod elsewhere;
mod exchange;
mod meta;

use std::fmt::{self, Write as _};
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::observability::TraceContext;

use super::body::{Body, BodyStream};
use super::error::{CallError, CallErrorKind, CallFailure, Sent};
use super::events::EventStream;
use super::options::CallOptions;
use super::read::{Empty, Events, Full, Json, Pieces, Raw, Read, Received};
use super::response::Response;
use super::stack::Stack;
use super::stream::ByteStream;
use super::{encode, query};

pub(super) use meta::Meta;

/// Room for most paths, with their query.
const PATH: usize = 96;

/// How the answer will be read.
struct Reading {
    not_found_is_fine: bool,
    streamed: bool,
    accept: Option<&'static str>,
}

/// A call that is being put together. What is wrong with its parts is said when it is sent.
#[must_use = "a call does nothing until it is sent"]
pub struct Call {
    stack: Arc<Stack>,
    meta: Arc<Meta>,
    options: CallOptions,
    keyed: bool,
    /// Where it stands in its trace, if that was decided already.
    trace: Option<TraceContext>,
    path: String,
    query: String,
    headers: HeaderMap,
    body: Body,
    flaw: Option<String>,
}

impl Call {
    pub(super) fn new(stack: &Arc<Stack>, meta: &Arc<Meta>, options: &CallOptions) -> Self {
        Self {
            stack: Arc::clone(stack),
            meta: Arc::clone(meta),
            options: options.clone(),
            keyed: meta.keyed,
            trace: None,
            path: String::with_capacity(PATH),
            query: String::new(),
            headers: HeaderMap::new(),
            body: Body::None,
            flaw: None,
        }
    }

    /// Adds to the path as it is.
    #[doc(hidden)]
    pub fn literal(mut self, text: &str) -> Self {
        self.path.push_str(text);
        self
    }

    /// Adds to the path what comes from an argument, encoded. `name` is for the error if it cannot be
    /// sent.
    #[doc(hidden)]
    pub fn value(mut self, name: &str, value: &dyn fmt::Display) -> Self {
        let begin = self.path.len();
        if write!(encode::Components(&mut self.path), "{value}").is_err() {
            self.note(|| format!("`{name}` cannot be written"));
        }
        // Both would silently be another path: the one of the parent, or of everything.
        let flaw = match &self.path[begin..] {
            "" => format!("`{name}` is empty, and a part of a path cannot be"),
            text @ ("." | "..") => {
                format!("`{name}` is `{text}`, which a path cannot hold as a part")
            }
            _ => return self,
        };
        self.note(|| flaw);
        self
    }

    /// Adds a slash and then `value`, encoded, to the path; an empty one is refused. `name` is for the
    /// error that says so.
    pub fn segment(self, name: &str, value: impl fmt::Display) -> Self {
        self.literal("/").value(name, &value)
    }

    /// Adds to the query: a scalar as `name=value`, a list as one pair for each item, a struct or map
    /// as one pair for each field, `None` as nothing.
    pub fn query<T: Serialize + ?Sized>(mut self, name: &str, value: &T) -> Self {
        if let Err(why) = query::add(&mut self.query, name, value) {
            self.note(|| format!("the query `{name}` cannot be written: {why}"));
        }
        self
    }

    /// Adds a header.
    pub fn header(mut self, name: &'static str, value: impl fmt::Display) -> Self {
        let parsed = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| format!("`{name}` is no name of a header"))
            .and_then(|name| {
                let value = HeaderValue::from_str(&value.to_string());
                // The value may be a secret.
                let value = value.map_err(|_| format!("`{name}` holds what no header can"));
                value.map(|value| (name, value))
            });
        match parsed {
            Ok((name, value)) => {
                self.headers.insert(name, value);
            }
            Err(why) => self.note(|| why),
        }
        self
    }

    /// With this as the body, in JSON.
    pub fn json<T: Serialize + ?Sized>(mut self, value: &T) -> Self {
        match serde_json::to_vec(value) {
            Ok(bytes) => {
                self.body = Body::Whole(bytes.into());
                let json = HeaderValue::from_static("application/json");
                self.headers.entry(CONTENT_TYPE).or_insert(json);
            }
            Err(error) => self.note(|| format!("the body cannot be written: {error}")),
        }
        self
    }

    /// With this as the body, of a content type that a [`header`](Self::header) names.
    pub fn bytes(mut self, body: impl Into<Bytes>) -> Self {
        self.body = Body::Whole(body.into());
        let octets = HeaderValue::from_static("application/octet-stream");
        self.headers.entry(CONTENT_TYPE).or_insert(octets);
        self
    }

    /// With this as the body, as the fields of a form.
    pub fn form<T: Serialize + ?Sized>(mut self, value: &T) -> Self {
        let mut fields = String::new();
        // The name is for a value that has no fields.
        if let Err(why) = query::add(&mut fields, "value", value) {
            self.note(|| format!("the form cannot be written: {why}"));
        }
        self.body = Body::Whole(fields.into());
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        self.headers.entry(CONTENT_TYPE).or_insert(form);
        self
    }

    /// With this as the body, in MessagePack with the names of fields. An answer in MessagePack is
    /// asked for too, and read as what it says it is.
    #[cfg(feature = "msgpack")]
    #[cfg_attr(docsrs, doc(cfg(feature = "msgpack")))]
    pub fn msgpack<T: Serialize + ?Sized>(mut self, value: &T) -> Self {
        match rmp_serde::to_vec_named(value) {
            Ok(bytes) => {
                self.body = Body::Whole(bytes.into());
                let msgpack = HeaderValue::from_static("application/msgpack");
                self.headers.entry(CONTENT_TYPE).or_insert(msgpack);
                let either = "application/msgpack, application/json;q=0.8, */*;q=0.5";
                let either = HeaderValue::from_static(either);
                self.headers.entry(http::header::ACCEPT).or_insert(either);
            }
            Err(error) => self.note(|| format!("the body cannot be written: {error}")),
        }
        self
    }

    /// With the body that comes from this stream. The call is not repeated once that has begun.
    pub fn stream(mut self, body: BodyStream) -> Self {
        self.body = Body::Pieces(body);
        let octets = HeaderValue::from_static("application/octet-stream");
        self.headers.entry(CONTENT_TYPE).or_insert(octets);
        self
    }

    /// With an `Idempotency-Key`, the same on every attempt, so that it may be repeated.
    pub fn idempotent(mut self) -> Self {
        self.keyed = true;
        self
    }

    /// Sends it and reads the answer's JSON.
    ///
    /// # Errors
    /// [`CallError`] says what happened.
    pub async fn receive<T: DeserializeOwned>(self) -> Result<T, CallError> {
        self.send::<Json<T>, _>().await
    }

    /// Sends it and reads the answer's JSON, with status and headers.
    ///
    /// # Errors
    /// [`CallError`] says what happened.
    pub async fn receive_response<T: DeserializeOwned>(self) -> Result<Response<T>, CallError> {
        self.send::<Full<Json<T>>, _>().await
    }

    /// Sends it and takes the bytes of the answer.
    ///
    /// # Errors
    /// [`CallError`] says what happened.
    pub async fn receive_bytes(self) -> Result<Bytes, CallError> {
        self.send::<Raw, _>().await
    }

    /// Sends it and takes the bytes of the answer while they come.
    ///
    /// # Errors
    /// [`CallError`] says what happened before they did.
    pub async fn receive_stream(self) -> Result<ByteStream, CallError> {
        self.send::<Pieces, _>().await
    }

    /// Sends it and takes the answer as events of the server.
    ///
    /// # Errors
    /// [`CallError`] says what happened before they came.
    pub async fn receive_events(self) -> Result<EventStream, CallError> {
        self.send::<Events, _>().await
    }

    /// Sends it and is content with success.
    ///
    /// # Errors
    /// [`CallError`] says what happened.
    pub async fn receive_nothing(self) -> Result<(), CallError> {
        self.send::<Empty, _>().await
    }

    /// Sends it and reads the answer as `R` says; an error's body is read as `E`.
    ///
    /// # Errors
    /// [`CallError`] says what happened.
    #[doc(hidden)]
    pub async fn send<R: Read, E: DeserializeOwned>(mut self) -> Result<R::Output, CallError<E>> {
        let result = match self.elsewhere() {
            None => self.send_here::<R>().await,
            // In a box, or each call would have room for two.
            Some(elsewhere) => Box::pin(elsewhere.or::<R>(self)).await,
        };
        result.map_err(|failure| {
            let problem = if failure.is_json() {
                serde_json::from_slice(&failure.body).ok()
            } else {
                None
            };
            CallError::new(failure, problem)
        })
    }

    /// Sends it to its own service alone.
    async fn send_here<R: Read>(self) -> Result<R::Output, Box<CallFailure>> {
        let (meta, stack) = (Arc::clone(&self.meta), Arc::clone(&self.stack));
        let begun = Instant::now();
        let mut now = begun;
        let reading = Reading {
            not_found_is_fine: R::NOT_FOUND_IS_FINE,
            streamed: R::STREAMED,
            accept: R::ACCEPT,
        };
        let answer = self.exchange(reading, &mut now).await;
        let result = answer.and_then(|answer| {
            let mut received = Received(answer);
            R::read(&mut received).map_err(|why| {
                let mut failure = CallFailure::new(CallErrorKind::Decode, &meta.call, why);
                failure.endpoint = Some(received.0.endpoint);
                failure.attempts = received.0.attempts;
                failure.sent = Sent::Yes;
                failure.status = Some(received.0.status);
                failure.headers = received.0.headers;
                Box::new(failure.with_body(received.0.body))
            })
        });
        let error = result.as_ref().err().map(|failure| failure.kind);
        meta.ended(&stack, error, now.saturating_duration_since(begun));
        result
    }

    /// Keeps the first thing that is wrong.
    fn note(&mut self, flaw: impl FnOnce() -> String) {
        self.flaw.get_or_insert_with(flaw);
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("service", &self.meta.call.service)
            .field("method", &self.meta.call.method)
            .finish_non_exhaustive()
    }
}
