//! What is the same for every call of one method.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::Method;

use crate::observability::metrics::{CLIENT_DURATION, CLIENT_FALLBACKS, Labels, Series};
use crate::resilience::UsualTime;

use super::super::cache::{CacheSettings, Rules};
use super::super::error::{CallErrorKind, CallName};
use super::super::options::{CallSettings, Decided};
use super::super::stack::Stack;

/// What may be done twice, as the standard says (RFC 9110, 9.2.2).
const IDEMPOTENT: [Method; 4] = [Method::GET, Method::HEAD, Method::PUT, Method::DELETE];

/// What is the same for every call of one method.
#[derive(Debug)]
pub(in super::super) struct Meta {
    pub(super) call: Arc<CallName>,
    pub(super) method: Method,
    pub(super) keyed: bool,
    /// Whether it does the same when it is done twice, also without a key.
    pub(super) repeatable: bool,
    pub(super) reconnects: bool,
    pub(super) cache: Option<Arc<Rules>>,
    /// The service that is asked where this one gives nothing, with what is the same for those calls.
    pub(super) elsewhere: Option<(Arc<Stack>, Arc<Meta>)>,
    pub(super) decided: Decided,
    /// How long its attempts usually take, where second requests go by that.
    pub(super) times: Option<Arc<UsualTime>>,
    answered: Series,
    /// By the kind of the error; made when it is needed, as most methods never fail in most ways.
    failed: [OnceLock<Series>; CallErrorKind::COUNT],
    /// Made when it is needed: most methods have no fallback.
    pub(super) fallbacks: OnceLock<Series>,
}

impl Meta {
    pub(in super::super) fn new(
        stack: &Stack,
        name: Cow<'static, str>,
        method: Method,
        keyed: bool,
        layers: &[CallSettings],
    ) -> Self {
        let call = CallName {
            service: Arc::clone(&stack.service),
            method: name,
        };
        Self {
            answered: duration(&call, "answered", stack),
            failed: Default::default(),
            call: Arc::new(call),
            repeatable: IDEMPOTENT.contains(&method),
            method,
            keyed,
            reconnects: false,
            cache: None,
            elsewhere: None,
            decided: Decided::of(layers),
            times: None,
            fallbacks: OnceLock::new(),
        }
    }

    /// A stream of events that breaks is asked for again.
    pub(in super::super) fn reconnecting(mut self, reconnects: bool) -> Self {
        self.reconnects = reconnects;
        self
    }

    /// Where second requests go by it, it is measured how long its own attempts take.
    pub(in super::super) fn timed(mut self) -> Self {
        self.times = self.decided.usual_time();
        self
    }

    /// The same, measured together with others.
    pub(in super::super) fn timed_with(mut self, times: Option<&Arc<UsualTime>>) -> Self {
        self.times = times.cloned();
        self
    }

    /// Its answers are kept by these rules.
    pub(in super::super) fn caching(mut self, settings: Option<CacheSettings>) -> Self {
        self.cache = settings.map(|settings| Arc::new(Rules::new(settings)));
        self
    }

    /// Where its service gives nothing, that one is asked.
    pub(in super::super) fn elsewhere(mut self, stack: &Arc<Stack>, meta: Arc<Self>) -> Self {
        self.elsewhere = Some((Arc::clone(stack), meta));
        self
    }

    /// A call has ended after `took`, with an answer or an error of this kind.
    pub(super) fn ended(&self, stack: &Stack, error: Option<CallErrorKind>, took: Duration) {
        if !self.answered.is_enabled() {
            return;
        }
        let series = match error {
            None => &self.answered,
            Some(kind) => self.failed[kind as usize]
                .get_or_init(|| duration(&self.call, kind.as_str(), stack)),
        };
        series.record(took.as_secs_f64());
    }

    /// The fallback gives what the service did not.
    pub(in super::super) fn falls_back(&self, stack: &Stack, why: &str) {
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

/// How long the calls took that ended like this.
fn duration(call: &CallName, outcome: &str, stack: &Stack) -> Series {
    let labels: Labels = vec![
        Arc::clone(&call.service),
        (*call.method).into(),
        outcome.into(),
    ];
    let sink = stack.environment.metrics.as_deref();
    Series::of(sink, CLIENT_DURATION, labels)
}
