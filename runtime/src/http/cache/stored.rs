//! One answer that is kept, and what may be done with it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{AGE, CACHE_CONTROL, EXPIRES, HeaderMap, HeaderName, HeaderValue, PRAGMA};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, TRANSFER_ENCODING};
use http::header::{IF_MODIFIED_SINCE, IF_NONE_MATCH};
use http::{Request, Response, StatusCode, request};
use http_cache_semantics::{BeforeRequest, CacheOptions, CachePolicy};

use super::super::stack::{Answer, Prepared};
use super::CacheSettings;

/// An answer with the rules for its use.
pub(super) struct Stored {
    policy: CachePolicy,
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    endpoint: Arc<str>,
    /// How long it is fresh, from its beginning on.
    lifetime: Duration,
    /// What was written to its path when it was asked for.
    writes: u64,
}

/// How an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Fresh,
    /// Too old, but it stands in while another is asked for.
    Aging,
    Stale,
    /// Of a request that was another in a way that counts.
    Other,
}

impl Stored {
    /// `None` for what may not be kept, or would be of no use.
    pub(super) fn of(
        prepared: &Prepared,
        answer: &Answer,
        now: SystemTime,
        writes: u64,
        settings: &CacheSettings,
    ) -> Option<Self> {
        let mut response = Response::new(());
        *response.status_mut() = answer.status;
        *response.headers_mut() = answer.headers.clone();
        // The policy adds to it what passes here, and panics where that does not fit.
        let age = answer.headers.get(AGE).and_then(|age| age.to_str().ok());
        let is_old = |age: &str| {
            age.bytes().all(|byte| byte.is_ascii_digit()) && age.parse::<u32>().is_err()
        };
        if age.is_some_and(|age| is_old(age.trim())) {
            response
                .headers_mut()
                .insert(AGE, HeaderValue::from(u32::MAX));
        }
        // Of what is not a success only the service knows how long that lasts.
        if let (Some(ttl), true) = (settings.ttl, answer.status.is_success())
            && says_nothing(&answer.headers)
        {
            // The header has whole seconds; what is less is cut off below.
            let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
            let value = format!("max-age={seconds}");
            let value = HeaderValue::from_str(&value).ok()?;
            response.headers_mut().append(CACHE_CONTROL, value);
        }
        let options = CacheOptions {
            // What is kept belongs to one identity.
            shared: false,
            // An answer that says nothing is not guessed to be good for anything.
            cache_heuristic: 0.0,
            ..CacheOptions::default()
        };
        let policy = CachePolicy::new_options(&request(prepared)?, &response, now, options);
        // The policy tells only what is left; without an age, that is all.
        response.headers_mut().remove(AGE);
        let young = CachePolicy::new_options(&request(prepared)?, &response, now, options);
        let mut lifetime = young.time_to_live(now);
        if let Some(ttl) = settings.ttl {
            lifetime = lifetime.min(ttl);
        }
        let has_validator = ["etag", "last-modified"]
            .iter()
            .any(|name| answer.headers.contains_key(*name));
        let useful = !lifetime.is_zero() || has_validator;
        (policy.is_storable() && useful).then(|| Self {
            policy,
            status: answer.status,
            headers: answer.headers.clone(),
            body: answer.body.clone(),
            endpoint: Arc::clone(&answer.endpoint),
            lifetime,
            writes,
        })
    }

    #[cfg(test)]
    pub(super) fn for_test(body: Vec<u8>) -> Self {
        let policy = CachePolicy::new(&Request::new(()), &Response::new(()));
        Self {
            policy,
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: body.into(),
            endpoint: "".into(),
            lifetime: Duration::from_secs(60),
            writes: 0,
        }
    }

    pub(super) fn writes(&self) -> u64 {
        self.writes
    }

    /// About how much room it takes.
    pub(super) fn bytes(&self) -> usize {
        let headers = self.headers.iter();
        let headers: usize = headers
            .map(|(name, value)| name.as_str().len() + value.len() + 64)
            .sum();
        // Once here and once in the policy, and what stands around them.
        self.body.len() + 2 * headers + 512
    }

    pub(super) fn state(
        &self,
        prepared: &Prepared,
        now: SystemTime,
        settings: &CacheSettings,
    ) -> State {
        let Some(request) = request(prepared) else {
            return State::Other;
        };
        let age = self.policy.age(now);
        match self.policy.before_request(&request, now) {
            BeforeRequest::Fresh(_) if age < self.lifetime => State::Fresh,
            BeforeRequest::Stale { matches: false, .. } => State::Other,
            // The caller wants to have it from the service.
            BeforeRequest::Stale { .. } if age < self.lifetime => State::Stale,
            _ if refuses_old(prepared) => State::Stale,
            _ => {
                let allowed = settings.stale_while_revalidate;
                let allowed = self.allowed("stale-while-revalidate", allowed);
                if age < self.lifetime.saturating_add(allowed) {
                    State::Aging
                } else {
                    State::Stale
                }
            }
        }
    }

    /// Whether it stands in for an error.
    pub(super) fn covers_errors(
        &self,
        prepared: &Prepared,
        now: SystemTime,
        settings: &CacheSettings,
    ) -> bool {
        if self.state(prepared, now, settings) == State::Other || refuses_old(prepared) {
            return false;
        }
        let allowed = self.allowed("stale-if-error", settings.stale_if_error);
        self.policy.age(now) < self.lifetime.saturating_add(allowed)
    }

    /// How long it stands in beyond its time: the lesser of what both sides say, and nothing where the
    /// service wants to be asked.
    fn allowed(&self, directive: &str, said: Option<Duration>) -> Duration {
        let strict = ["no-cache", "must-revalidate"];
        if strict
            .iter()
            .any(|name| directive_of(&self.headers, name).is_some())
        {
            return Duration::ZERO;
        }
        let theirs = directive_of(&self.headers, directive);
        let theirs = theirs.and_then(|seconds| seconds.parse().ok());
        match (said, theirs.map(Duration::from_secs)) {
            (Some(ours), Some(theirs)) => ours.min(theirs),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => Duration::ZERO,
        }
    }

    /// The request that asks whether it still holds; `None` where it has nothing to ask by.
    pub(super) fn conditional(&self, prepared: &Prepared, now: SystemTime) -> Option<Prepared> {
        let mut asking = request(prepared)?;
        // The policy writes a condition only where it would not answer by itself.
        let no_cache = HeaderValue::from_static("no-cache");
        asking.headers.insert(CACHE_CONTROL, no_cache);
        let policy = self.policy.before_request(&asking, now);
        let BeforeRequest::Stale {
            request,
            matches: true,
        } = policy
        else {
            return None;
        };
        let mut conditional = prepared.clone();
        for name in [IF_NONE_MATCH, IF_MODIFIED_SINCE] {
            if let Some(value) = request.headers.get(&name) {
                conditional.headers.insert(name, value.clone());
                conditional.not_modified_is_fine = true;
            }
        }
        conditional.not_modified_is_fine.then_some(conditional)
    }

    /// The same body with what 304 says of it; `None` if it speaks of another.
    pub(super) fn renewed(
        &self,
        prepared: &Prepared,
        answer: &Answer,
        now: SystemTime,
        writes: u64,
        settings: &CacheSettings,
    ) -> Option<Self> {
        let tag = |headers: &HeaderMap| {
            let tag = headers.get("etag")?.to_str().ok()?;
            Some(tag.trim().trim_start_matches("W/").to_owned())
        };
        if let (Some(theirs), Some(ours)) = (tag(&answer.headers), tag(&self.headers))
            && theirs != ours
        {
            return None;
        }
        let mut headers = self.headers.clone();
        headers.remove(AGE);
        for (name, value) in &answer.headers {
            if !of_the_body(name) {
                headers.insert(name.clone(), value.clone());
            }
        }
        let whole = Answer {
            status: self.status,
            headers,
            body: self.body.clone(),
            ..answer.copy()
        };
        Self::of(prepared, &whole, now, writes, settings)
    }

    /// As an answer to a call of now.
    pub(super) fn answer(&self, now: SystemTime) -> Answer {
        let mut headers = self.headers.clone();
        let age = self.policy.age(now).as_secs();
        headers.insert(AGE, HeaderValue::from(age));
        Answer {
            status: self.status,
            headers,
            body: self.body.clone(),
            endpoint: Arc::clone(&self.endpoint),
            attempts: 0,
            rest: None,
            again: None,
            bytes_max: 0,
        }
    }
}

fn of_the_body(name: &HeaderName) -> bool {
    [
        CONTENT_ENCODING,
        CONTENT_LENGTH,
        CONTENT_RANGE,
        TRANSFER_ENCODING,
    ]
    .contains(name)
}

/// The request as the policy sees it. `None` for a target that is none.
fn request(prepared: &Prepared) -> Option<request::Parts> {
    let mut request = Request::new(());
    *request.method_mut() = prepared.method.clone();
    *request.uri_mut() = prepared.target.parse().ok()?;
    *request.headers_mut() = prepared.headers.clone();
    Some(request.into_parts().0)
}

/// Whether the service has left it to us how long an answer holds.
fn says_nothing(headers: &HeaderMap) -> bool {
    let says = [
        "max-age",
        "no-cache",
        "no-store",
        "s-maxage",
        "must-revalidate",
    ];
    !headers.contains_key(EXPIRES)
        && !headers.contains_key(PRAGMA)
        && says
            .iter()
            .all(|name| directive_of(headers, name).is_none())
}

/// Whether the caller wants nothing that is past its time.
fn refuses_old(prepared: &Prepared) -> bool {
    let refusing = ["no-cache", "no-store", "max-age", "min-fresh"];
    let mut refusing = refusing.iter();
    refusing.any(|name| directive_of(&prepared.headers, name).is_some())
}

/// The value of a directive of `Cache-Control`; empty where it has none.
fn directive_of<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let values = headers.get_all(CACHE_CONTROL).iter();
    let texts = values.filter_map(|value| value.to_str().ok());
    let mut directives = texts.flat_map(|text| text.split(','));
    directives.find_map(|directive| {
        let (key, value) = directive.split_once('=').unwrap_or((directive, ""));
        let matches = key.trim().eq_ignore_ascii_case(name);
        matches.then(|| value.trim().trim_matches('"'))
    })
}
