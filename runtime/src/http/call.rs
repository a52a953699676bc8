//! One call, from its parts to what it gives.

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue, USER_AGENT};
use http::{HeaderMap, Method};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use tracing::Instrument;

use crate::clock::later;
use crate::message::Headers;
use crate::observability::TraceContext;
use crate::observability::metrics::{CLIENT_DURATION, CLIENT_FALLBACKS, Labels, Series};
use crate::resilience::UsualTime;

use super::body::{Body, BodyStream};
use super::cache::{CacheSettings, Cached, Key, Rules};
use super::context::Ambient;
use super::error::{CallError, CallErrorKind, CallFailure, CallName, Sent};
use super::events::{Again, EventStream};
use super::options::{CallOptions, CallSettings, Decided};
use super::read::{Empty, Events, Full, Json, Pieces, Raw, Read, Received};
use super::response::Response;
use super::stack::{Answer, Prepared, Stack};
use super::stream::ByteStream;
use super::{encode, query};

static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// What is the same for every call of one method.
#[derive(Debug)]
pub(super) struct Meta {
    call: Arc<CallName>,
    method: Method,
    keyed: bool,
    reconnects: bool,
    cache: Option<Arc<Rules>>,
    decided: Decided,
    /// How long its attempts usually take, where second requests go by that.
    times: Option<Arc<UsualTime>>,
    answered: Series,
    failed: Series,
    /// Made when it is needed: most methods have no fallback.
    fallbacks: OnceLock<Series>,
}

impl Meta {
    pub(super) fn new(
        stack: &Stack,
        name: Cow<'static, str>,
        method: Method,
        keyed: bool,
        layers: &[CallSettings],
    ) -> Self {
        let series = |outcome: &str| {
            let labels: Labels = vec![Arc::clone(&stack.service), (*name).into(), outcome.into()];
            Series::of(
                stack.environment.metrics.as_deref(),
                CLIENT_DURATION,
                labels,
            )
        };
        let (answered, failed) = (series("answered"), series("failed"));
        let service = Arc::clone(&stack.service);
        Self {
            call: Arc::new(CallName {
                service,
                method: name,
            }),
            method,
            keyed,
            reconnects: false,
            cache: None,
            decided: Decided::of(layers),
            times: None,
            answered,
            failed,
            fallbacks: OnceLock::new(),
        }
    }

    /// A stream of events that breaks is asked for again.
    pub(super) fn reconnecting(mut self, reconnects: bool) -> Self {
        self.reconnects = reconnects;
        self
    }

    /// Where second requests go by it, it is measured how long its own attempts take.
    pub(super) fn timed(mut self) -> Self {
        self.times = self.decided.usual_time();
        self
    }

    /// The same, measured together with others.
    pub(super) fn timed_with(mut self, times: Option<&Arc<UsualTime>>) -> Self {
        self.times = times.cloned();
        self
    }

    /// Its answers are kept by these rules.
    pub(super) fn caching(mut self, settings: Option<CacheSettings>) -> Self {
        self.cache = settings.map(|settings| Arc::new(Rules::new(settings)));
        self
    }

    /// The fallback gives what the service did not.
    pub(super) fn falls_back(&self, stack: &Stack, why: &str) {
        let series = self.fallbacks.get_or_init(|| {
            let method: Arc<str> = (*self.call.method).into();
            let labels: Labels = vec![Arc::clone(&self.call.service), method];
            let sink = stack.environment.metrics.as_deref();
            Series::of(sink, CLIENT_FALLBACKS, labels)
        });
        series.record(1.0);
        let (service, method) = (&*self.call.service, &*self.call.method);
        tracing::debug!(service, method, why, "the fallback answers");
    }
}

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
            path: String::new(),
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
        let text = value.to_string();
        // Both would silently be another path: the one of the parent, or of everything.
        if text.is_empty() {
            self.note(|| format!("`{name}` is empty, and a part of a path cannot be"));
        } else if matches!(&*text, "." | "..") {
            self.note(|| format!("`{name}` is `{text}`, which a path cannot hold as a part"));
        }
        encode::component(&mut self.path, &text);
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
                self.headers.entry(ACCEPT).or_insert(either);
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
    pub async fn send<R: Read, E: DeserializeOwned>(self) -> Result<R::Output, CallError<E>> {
        let meta = Arc::clone(&self.meta);
        let begun = Instant::now();
        let reading = Reading {
            not_found_is_fine: R::NOT_FOUND_IS_FINE,
            streamed: R::STREAMED,
            accept: R::ACCEPT,
        };
        let answer = self.exchange(reading).await;
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
        let series = if result.is_ok() {
            &meta.answered
        } else {
            &meta.failed
        };
        if series.is_enabled() {
            series.record(begun.elapsed().as_secs_f64());
        }
        result.map_err(|failure| {
            let problem = if failure.is_json() {
                serde_json::from_slice(&failure.body).ok()
            } else {
                None
            };
            CallError::new(failure, problem)
        })
    }

    /// Everything that depends on no type.
    async fn exchange(mut self, reading: Reading) -> Result<Answer, Box<CallFailure>> {
        let meta = &self.meta;
        if let Some(flaw) = self.flaw {
            let failure = CallFailure::new(CallErrorKind::Request, &meta.call, flaw);
            return Err(Box::new(failure));
        }
        let ambient = Ambient::current();
        let now = Instant::now();
        let limits = [
            Some(later(now, meta.decided.timeout)),
            // Longer than the clock goes is no limit.
            self.options
                .timeout
                .and_then(|limit| now.checked_add(limit)),
            self.options.deadline,
            ambient.as_ref().and_then(Ambient::deadline),
        ];
        let deadline = limits.into_iter().flatten().min().unwrap_or(now);
        let mut decided = meta.decided;
        if self.options.no_retry || ambient.as_ref().is_some_and(Ambient::is_repeat) {
            decided.attempts = 1;
        }
        if !self.query.is_empty() {
            self.path.push('?');
            self.path.push_str(&self.query);
        }
        let trace = self.stack.trace(ambient.as_ref());
        let span = tracing::info_span!(
            "call",
            otel.name = %meta.call.method,
            otel.kind = "client",
            service = &*meta.call.service,
            trace_id = tracing::field::Empty,
        );
        if !span.is_disabled() {
            span.record("trace_id", trace.trace_id());
        }
        if let Some(accept) = reading.accept {
            let accept = HeaderValue::from_static(accept);
            self.headers.entry(ACCEPT).or_insert(accept);
        }
        self.stack
            .add_headers(&mut self.headers, &trace, ambient.as_ref());
        let kept_under = self.meta.cache.as_ref().map(|rules| {
            let headers = [&self.headers, &self.options.headers];
            let fine = reading.not_found_is_fine;
            let key = Key::new(&self.meta.method, &self.path, &headers, fine);
            (Arc::clone(rules), key)
        });
        if self.keyed && !self.headers.contains_key(&IDEMPOTENCY_KEY) {
            let key = self.stack.new_key();
            self.headers.insert(IDEMPOTENCY_KEY.clone(), key);
        }
        self.headers
            .extend(std::mem::take(&mut self.options.headers));
        let safe = [Method::GET, Method::HEAD, Method::PUT, Method::DELETE];
        let prepared = Prepared {
            call: Arc::clone(&meta.call),
            method: meta.method.clone(),
            target: self.path,
            headers: self.headers,
            body: self.body,
            repeatable: self.keyed || safe.contains(&meta.method),
            decided,
            times: meta.times.clone(),
            deadline,
            hash: self.options.hash,
            zone: self.options.zone,
            streamed: reading.streamed,
            not_found_is_fine: reading.not_found_is_fine,
            not_modified_is_fine: false,
        };
        if let Some((rules, key)) = kept_under {
            let cached = Cached {
                stack: self.stack,
                prepared: Arc::new(prepared),
                rules,
                key,
            };
            return cached.call().instrument(span).await;
        }
        let writing = Writing(Some((&*self.stack, &prepared)));
        let result = self.stack.call(&prepared).instrument(span).await;
        let sent = result.as_ref();
        writing.ended(sent.map_or_else(|failure| failure.sent, |_| Sent::Yes));
        let mut answer = result?;
        if self.meta.reconnects {
            answer.again = Some(Again {
                stack: self.stack,
                prepared: Arc::new(prepared),
            });
        }
        Ok(answer)
    }

    /// Keeps the first thing that is wrong.
    fn note(&mut self, flaw: impl FnOnce() -> String) {
        self.flaw.get_or_insert_with(flaw);
    }
}

/// A call that may write something. Given up, it may have, or still will: what is kept does not count any
/// more then, either.
struct Writing<'c>(Option<(&'c Stack, &'c Prepared)>);

impl Writing<'_> {
    fn ended(mut self, sent: Sent) {
        if sent == Sent::No {
            self.0 = None;
        }
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        if let Some((stack, prepared)) = self.0 {
            stack.written(prepared);
        }
    }
}

impl Stack {
    /// Where the call stands in its trace.
    fn trace(&self, ambient: Option<&Ambient>) -> TraceContext {
        let rng = &self.environment.rng;
        match ambient {
            Some(ambient) => ambient.trace().child(rng),
            None => TraceContext::root(rng),
        }
    }

    /// The headers that every call has. What the call itself says stays.
    fn add_headers(
        &self,
        headers: &mut HeaderMap,
        trace: &TraceContext,
        ambient: Option<&Ambient>,
    ) {
        let mut ours = Headers::new();
        trace.write(&mut ours);
        if let Some(ambient) = ambient {
            ambient.write_correlation(&mut ours);
        }
        for (name, value) in ours.iter() {
            let name = HeaderName::from_bytes(name.as_bytes());
            let text = value.to_text();
            let value = text.and_then(|text| HeaderValue::from_str(&text).ok());
            if let (Ok(name), Some(value)) = (name, value) {
                headers.entry(name).or_insert(value);
            }
        }
        if let Ok(agent) = HeaderValue::from_str(&self.environment.caller) {
            headers.entry(USER_AGENT).or_insert(agent);
        }
        let json = HeaderValue::from_static("application/json, */*;q=0.5");
        headers.entry(ACCEPT).or_insert(json);
    }

    fn new_key(&self) -> HeaderValue {
        let uuid = uuid::Builder::from_random_bytes(self.environment.rng.bytes16()).into_uuid();
        let mut buffer = uuid::Uuid::encode_buffer();
        let text = uuid.hyphenated().encode_lower(&mut buffer);
        // Hexadecimal digits and dashes always fit.
        HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
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
