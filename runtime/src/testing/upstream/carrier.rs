//! The way of a request to an instance of an upstream, and that of the answer back.

use std::fmt;
use std::sync::Arc;

use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body::Body as _;
use tokio::time::Instant;

use crate::discovery::{Discovery, EndpointSet};
use crate::handling::BoxFuture;
use crate::http::{Carried, Coming, StandIn, Uncarried};
use crate::message::{MessageId, headers::name};
use crate::messaging::memory::MemoryStore;

use super::super::app::lock;
use super::answer::{Act, Answer, End, Reply};
use super::body::Pieces;
use super::flight::Flight;
use super::instance::{Instance, Life, Takes};
use super::request::{Seen, UpstreamRequest};
use super::route::Named;
use super::script::Respond;
use super::{Listed, Shared};

/// What every attempt of a call says, and a health check does not.
const ATTEMPT: &str = "x-attempt";
/// Where health is asked for unless the configuration says something else.
const HEALTH_PATH: &str = "/health/ready";

/// A connection that is lost, and how.
pub(super) struct Lost(pub(super) String);

/// Carries the requests of one app to an upstream.
pub(in super::super) struct Carrier {
    upstream: Arc<Shared>,
    /// Whose events are those of the app.
    store: MemoryStore,
    origin: Instant,
}

impl Carrier {
    pub(super) fn new(upstream: &Arc<Shared>, store: &MemoryStore) -> Self {
        Self {
            upstream: Arc::clone(upstream),
            store: store.clone(),
            origin: Instant::now(),
        }
    }

    async fn exchange(&self, request: Carried) -> Result<http::Response<Coming>, Uncarried> {
        let found = self.upstream.at(&request.authority);
        let is_check = is_check(&request);
        let told = Told::new(self, &request, found.as_deref(), is_check);
        let Some(instance) = found else {
            told.end("there is nobody");
            return Err(refused());
        };
        let life = instance.life();
        let (method, target) = (&request.method, &request.target);
        let what = format!("{method} {target} at {}", instance.endpoint.url());
        let flight = self.upstream.flights.begin(what);
        // The body has the same life: a stop between two of them would be missed.
        let (mut life, body_life) = (life.clone(), life);
        let serving = self.serve(request, &instance, flight, body_life, &told);
        let result = tokio::select! {
            biased;
            lost = life.lost() => {
                told.end("is stopped meanwhile");
                return Err(Uncarried::Lost(lost.0));
            }
            result = serving => result,
        };
        Ok(result?.map(|reply| Box::pin(reply) as Coming))
    }

    async fn serve(
        &self,
        request: Carried,
        instance: &Arc<Instance>,
        flight: Flight,
        life: Life,
        told: &Told<'_>,
    ) -> Result<http::Response<Pieces>, Uncarried> {
        let (takes, latency) = {
            let state = lock(&instance.state);
            (state.takes, state.latency)
        };
        let is_check = is_check(&request);
        match takes {
            Takes::Nothing => {
                told.end("refuses the connection, because it is stopped");
                return Err(refused());
            }
            Takes::NoMore if !is_check => {
                told.end("gives the request back, because it drains");
                return Err(Uncarried::Leaving);
            }
            Takes::NoMore | Takes::All => {}
        }
        let path = path(&request.target);
        let scripted = self.scripted(instance, &request.method, path, is_check);
        let (named, respond) = match scripted {
            _ if is_check && takes == Takes::NoMore => (Named::new(), unwell()),
            Some(scripted) => scripted,
            None if is_check => (Named::new(), Respond::Always(Answer::ok())),
            None => (Named::new(), self.unscripted(&request)),
        };
        let method = request.method.clone();
        let (connect_timeout, streamed) = (request.connect_timeout, request.streamed);
        let answer = match respond {
            // Who takes no connection reads nothing.
            Respond::Always(answer) if matches!(answer.act, Act::Refused | Act::Unreachable) => {
                answer
            }
            respond => {
                let seen = self.read(request, instance, named, &flight).await?;
                if !is_check {
                    lock(&self.upstream.requests).push(seen.clone());
                }
                match respond {
                    Respond::Always(answer) => answer,
                    Respond::By(respond) => respond(&seen),
                }
            }
        };
        flight.wait(latency.saturating_add(answer.after)).await;
        match answer.act {
            Act::Reply(reply) => {
                let end = match reply.end {
                    End::Complete => String::new(),
                    End::BreaksOff(bytes) => format!(" and breaks off after {bytes} bytes"),
                    End::Stalls(bytes) => format!(" and stalls after {bytes} bytes"),
                };
                told.end(&format!("answers {}{end}", reply.status.as_u16()));
                // Whoever reads while it comes may leave it lying for as long as he likes.
                let flight = (!streamed || !reply.status.is_success()).then_some(flight);
                Ok(response(reply, &method, life, flight))
            }
            Act::Refused => {
                told.end("refuses the connection");
                Err(refused())
            }
            Act::Unreachable => {
                flight.wait(connect_timeout).await;
                told.end("is not reached");
                let text = format!("nothing came back within {connect_timeout:?}");
                Err(Uncarried::Unreachable(text))
            }
            Act::Reset => {
                told.end("resets the connection");
                let text = "connection reset before the answer began";
                Err(Uncarried::Lost(text.to_owned()))
            }
            Act::Silence => match flight.wait_for_ever().await {},
            Act::Busy => {
                told.end("gives the request back, because it is busy");
                Err(Uncarried::Busy)
            }
            Act::Leaving => {
                told.end("gives the request back, because it goes away");
                Err(Uncarried::Leaving)
            }
        }
    }

    fn scripted(
        &self,
        instance: &Instance,
        method: &Method,
        path: &str,
        is_check: bool,
    ) -> Option<(Named, Respond)> {
        let (own, common) = (&instance.script, &self.upstream.script);
        let next = lock(own).take_next(method, path, is_check);
        next.or_else(|| lock(common).take_next(method, path, is_check))
            .or_else(|| lock(own).standing(method, path))
            .or_else(|| lock(common).standing(method, path))
    }

    /// What is answered where the test has said nothing.
    fn unscripted(&self, request: &Carried) -> Respond {
        let (method, target) = (&request.method, &request.target);
        let service = &self.upstream.service;
        let detail = format!("the test says no answer of `{service}` to {method} {target}");
        let problem = serde_json::json!({ "title": "no answer", "status": 501, "detail": detail });
        let answer = Answer::status(501).header("content-type", "application/problem+json");
        Respond::Always(answer.body(problem.to_string()))
    }

    async fn read(
        &self,
        request: Carried,
        instance: &Instance,
        named: Named,
        flight: &Flight,
    ) -> Result<UpstreamRequest, Uncarried> {
        let at = self.origin.elapsed();
        Ok(UpstreamRequest(Arc::new(Seen {
            instance: instance.endpoint.url().into(),
            at,
            method: request.method,
            target: request.target,
            headers: request.headers,
            body: flight.wait_for(request.body.read()).await?,
            named,
        })))
    }
}

/// Whether it asks how the instance is.
fn is_check(request: &Carried) -> bool {
    !request.headers.contains_key(ATTEMPT) || path(&request.target) == HEALTH_PATH
}

fn path(target: &str) -> &str {
    target.split_once('?').map_or(target, |(path, _)| path)
}

fn refused() -> Uncarried {
    Uncarried::Unreachable("connection refused".to_owned())
}

fn unwell() -> Respond {
    Respond::Always(Answer::status(503))
}

fn response(
    mut reply: Reply,
    method: &Method,
    life: Life,
    flight: Option<Flight>,
) -> http::Response<Pieces> {
    let bodyless = [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED];
    if *method == Method::HEAD || bodyless.contains(&reply.status) {
        reply.pieces.clear();
    }
    let (status, mut headers) = (reply.status, std::mem::take(&mut reply.headers));
    let body = Pieces::new(reply, life, flight);
    add_length(&mut headers, status, body.size_hint().exact());
    let mut response = http::Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// As servers do where the body is known before it is sent.
fn add_length(headers: &mut HeaderMap, status: StatusCode, length: Option<u64>) {
    if let Some(length) = length
        && status != StatusCode::NO_CONTENT
        && status != StatusCode::NOT_MODIFIED
    {
        let length = HeaderValue::from(length);
        headers.entry(CONTENT_LENGTH).or_insert(length);
    }
}

impl StandIn for Carrier {
    fn discovery(&self, configured: Option<&EndpointSet>) -> Arc<dyn Discovery> {
        self.upstream.adopt(configured);
        Arc::new(Listed(Arc::clone(&self.upstream)))
    }

    fn carry(&self, request: Carried) -> BoxFuture<'_, Result<http::Response<Coming>, Uncarried>> {
        Box::pin(self.exchange(request))
    }

    fn reach(&self, authority: &str) -> BoxFuture<'_, Result<(), String>> {
        let found = self.upstream.at(authority);
        Box::pin(async move {
            let takes = found.map(|instance| lock(&instance.state).takes);
            match takes {
                Some(Takes::All) => Ok(()),
                Some(Takes::NoMore | Takes::Nothing) | None => Err("connection refused".to_owned()),
            }
        })
    }
}

impl fmt::Debug for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Carrier")
            .field("upstream", &self.upstream.service)
            .finish_non_exhaustive()
    }
}

/// Tells the timeline of one request.
struct Told<'c> {
    store: &'c MemoryStore,
    /// `None` of a health check: there are many of them.
    what: Option<String>,
    who: String,
    cause: Option<MessageId>,
    ended: std::sync::atomic::AtomicBool,
}

impl<'c> Told<'c> {
    fn new(
        carrier: &'c Carrier,
        request: &Carried,
        instance: Option<&Instance>,
        is_check: bool,
    ) -> Self {
        let text = |name: &str| request.headers.get(name)?.to_str().ok();
        let attempt = text(ATTEMPT).filter(|_| !is_check);
        let cause = text(name::CAUSATION_ID).and_then(MessageId::parse);
        let who = instance
            .map_or(&*request.authority, Instance::name)
            .to_owned();
        let what = format!("{} {}", request.method, request.target);
        let this = Self {
            store: &carrier.store,
            what: attempt.map(|_| what),
            who,
            cause,
            ended: false.into(),
        };
        if let (Some(what), Some(attempt)) = (&this.what, attempt) {
            let again = match attempt {
                "1" => String::new(),
                attempt => format!(", attempt {attempt}"),
            };
            this.tell(format!("{what} -> {}{again}", this.who));
        }
        this
    }

    fn end(&self, how: &str) {
        self.ended.store(true, std::sync::atomic::Ordering::Relaxed);
        if let Some(what) = &self.what {
            self.tell(format!("{} {how}: {what}", self.who));
        }
    }

    fn tell(&self, text: String) {
        match &self.cause {
            Some(cause) => self.store.note(cause, text),
            None => self.store.remark(text),
        }
    }
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if !self.ended.load(std::sync::atomic::Ordering::Relaxed) {
            self.end("has not answered, and nobody waits for it any more");
        }
    }
}
