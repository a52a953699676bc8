//! The way of a call from its parts to the answer: everything that depends on no type.

use std::sync::Arc;

use http::HeaderMap;
use http::header::{ACCEPT, Entry, HeaderName, HeaderValue, USER_AGENT};
use tokio::time::Instant;
use tracing::Instrument;

use crate::clock::later;
use crate::message::headers::name;
use crate::observability::TraceContext;

use super::super::cache::{Cached, Key};
use super::super::context::Ambient;
use super::super::error::{CallErrorKind, CallFailure, Sent};
use super::super::events::Again;
use super::super::stack::{Answer, Prepared, Stack};
use super::{Call, Reading};

static CAUSATION_ID: HeaderName = HeaderName::from_static(name::CAUSATION_ID);
static CORRELATION_ID: HeaderName = HeaderName::from_static(name::CORRELATION_ID);
static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
static TRACEPARENT: HeaderName = HeaderName::from_static(name::TRACEPARENT);

/// As many headers as most requests have.
const USUAL: usize = 6;

impl Call {
    /// Sends it as often as it takes. It begins at `now`, which becomes the moment at which it has ended.
    pub(super) async fn exchange(
        mut self,
        reading: Reading,
        now: &mut Instant,
    ) -> Result<Answer, Box<CallFailure>> {
        let meta = &self.meta;
        if let Some(flaw) = self.flaw.take() {
            let failure = CallFailure::new(CallErrorKind::Request, &meta.call, flaw);
            return Err(Box::new(failure));
        }
        let ambient = Ambient::current();
        let deadline = self.deadline(ambient.as_ref(), *now);
        let mut decided = meta.decided;
        if self.options.no_retry || ambient.as_ref().is_some_and(Ambient::is_repeat) {
            decided.attempts = 1;
        }
        if !self.query.is_empty() {
            self.path.push('?');
            self.path.push_str(&self.query);
        }
        let known = self.trace.take();
        let trace = known.unwrap_or_else(|| self.stack.trace(ambient.as_ref()));
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
        self.add_key();
        let meta = &self.meta;
        if !self.options.headers.is_empty() {
            self.headers
                .extend(std::mem::take(&mut self.options.headers));
        }
        let prepared = Prepared {
            call: Arc::clone(&meta.call),
            method: meta.method.clone(),
            target: self.path,
            headers: self.headers,
            body: self.body,
            repeatable: self.keyed || meta.repeatable,
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
            let result = cached.call().instrument(span).await;
            *now = Instant::now();
            return result;
        }
        let writing = Writing(Some((&*self.stack, &prepared)));
        let result = self.stack.call_at(&prepared, now).instrument(span).await;
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

    /// When it ends, if it begins now.
    pub(super) fn deadline(&self, ambient: Option<&Ambient>, now: Instant) -> Instant {
        let limits = [
            Some(later(now, self.meta.decided.timeout)),
            // Longer than the clock goes is no limit.
            self.options
                .timeout
                .and_then(|limit| now.checked_add(limit)),
            self.options.deadline,
            ambient.and_then(Ambient::deadline),
        ];
        limits.into_iter().flatten().min().unwrap_or(now)
    }

    /// Adds the key by which the service knows it again, unless it has one.
    pub(super) fn add_key(&mut self) {
        if self.keyed && !self.headers.contains_key(&IDEMPOTENCY_KEY) {
            let key = self.stack.new_key();
            self.headers.insert(IDEMPOTENCY_KEY.clone(), key);
        }
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

/// Adds a header that the call does not have. What no header can hold is left out.
fn add(headers: &mut HeaderMap, name: &HeaderName, text: String) {
    if let (Entry::Vacant(place), Ok(value)) = (headers.entry(name), HeaderValue::try_from(text)) {
        place.insert(value);
    }
}

impl Stack {
    /// Where the call stands in its trace.
    pub(super) fn trace(&self, ambient: Option<&Ambient>) -> TraceContext {
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
        // At once, with those of each attempt.
        headers.reserve(USUAL);
        let has_its_own = headers.contains_key(&TRACEPARENT);
        if !has_its_own {
            add(headers, &TRACEPARENT, trace.traceparent());
        }
        for (header, value) in trace.carried() {
            // The state belongs to the trace; what else is carried does not.
            if !has_its_own || header != name::TRACESTATE {
                add(headers, &HeaderName::from_static(header), value.to_owned());
            }
        }
        if let Some(ambient) = ambient {
            let (correlation, cause) = ambient.correlation();
            add(headers, &CORRELATION_ID, correlation);
            if let Some(cause) = cause {
                add(headers, &CAUSATION_ID, cause);
            }
        }
        if let Some(agent) = &self.agent {
            headers.entry(USER_AGENT).or_insert_with(|| agent.clone());
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
