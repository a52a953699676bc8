//! What is the same for every call of one method.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use http::Method;

use crate::observability::metrics::{CLIENT_DURATION, CLIENT_FALLBACKS, Labels, Series};
use crate::resilience::UsualTime;

use super::super::cache::{CacheSettings, Rules};
use super::super::error::CallName;
use super::super::options::{CallSettings, Decided};
use super::super::stack::Stack;

/// What is the same for every call of one method.
#[derive(Debug)]
pub(in super::super) struct Meta {
    pub(super) call: Arc<CallName>,
    pub(super) method: Method,
    pub(super) keyed: bool,
    pub(super) reconnects: bool,
    pub(super) cache: Option<Arc<Rules>>,
    pub(super) decided: Decided,
    /// How long its attempts usually take, where second requests go by that.
    pub(super) times: Option<Arc<UsualTime>>,
    pub(super) answered: Series,
    pub(super) failed: Series,
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
