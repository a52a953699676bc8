//! A call as it is sent, and what comes back.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::HeaderValue;
use http::{HeaderMap, HeaderName, Method, StatusCode};
use tokio::time::Instant;

use crate::resilience::UsualTime;

use super::super::body::Body;
use super::super::error::CallName;
use super::super::events::Again;
use super::super::options::Decided;
use super::super::pool::Target;
use super::super::stream::Rest;
use super::super::transport::Outgoing;

/// Which attempt it is, from 1.
pub(in super::super) static ATTEMPT: HeaderName = HeaderName::from_static("x-attempt");
/// How many milliseconds the caller will still wait.
pub(in super::super) static TIMEOUT: HeaderName = HeaderName::from_static("x-timeout-ms");

/// A request, ready to be sent as often as it takes.
#[derive(Clone)]
pub(in super::super) struct Prepared {
    pub(in super::super) call: Arc<CallName>,
    pub(in super::super) method: Method,
    /// Path and query, from the first slash on.
    pub(in super::super) target: String,
    pub(in super::super) headers: HeaderMap,
    pub(in super::super) body: Body,
    /// Whether the answer is read while it comes.
    pub(in super::super) streamed: bool,
    /// Whether the service may see it more than once.
    pub(in super::super) repeatable: bool,
    pub(in super::super) decided: Decided,
    /// How long attempts usually take, where second requests go by that.
    pub(in super::super) times: Option<Arc<UsualTime>>,
    pub(in super::super) deadline: Instant,
    /// Calls with the same hash go to the same endpoint, where the balancer hashes.
    pub(in super::super) hash: Option<u64>,
    /// Where the caller is, if not where the configuration says.
    pub(in super::super) zone: Option<Arc<str>>,
    /// Whether 404 is an answer like any other.
    pub(in super::super) not_found_is_fine: bool,
    /// Whether 304 is, because the request names what is kept.
    pub(in super::super) not_modified_is_fine: bool,
}

/// An answer, with the name of who gave it.
#[derive(Debug)]
pub(in super::super) struct Answer {
    pub(in super::super) status: StatusCode,
    pub(in super::super) headers: HeaderMap,
    pub(in super::super) body: Bytes,
    pub(in super::super) endpoint: Arc<str>,
    pub(in super::super) attempts: u32,
    /// What is still to come of a streamed answer.
    pub(in super::super) rest: Option<Rest>,
    /// How to ask for it once more, where that was declared.
    pub(in super::super) again: Option<Again>,
    /// The longest answer, or event, that may come.
    pub(in super::super) bytes_max: usize,
}

impl Answer {
    /// The same once more, of one that came whole.
    pub(in super::super) fn copy(&self) -> Self {
        Self {
            status: self.status,
            headers: self.headers.clone(),
            body: self.body.clone(),
            endpoint: Arc::clone(&self.endpoint),
            attempts: self.attempts,
            rest: None,
            again: None,
            bytes_max: self.bytes_max,
        }
    }
}

impl Prepared {
    /// What is sent to this endpoint as this attempt, for whose answer there is so much time.
    pub(super) fn outgoing(&self, target: &Target, attempt: u32, left: Duration) -> Outgoing {
        let mut headers = self.headers.clone();
        let number = match attempt {
            1 => HeaderValue::from_static("1"),
            _ => HeaderValue::from(attempt),
        };
        headers.insert(ATTEMPT.clone(), number);
        let millis = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        headers.insert(TIMEOUT.clone(), HeaderValue::from(millis));
        Outgoing {
            method: self.method.clone(),
            door: target.door.clone(),
            url: target.address().of(&self.target),
            headers,
            body: self.body.clone(),
            streamed: self.streamed,
        }
    }
}
