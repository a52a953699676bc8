//! `[services.NAME]`: where a service is and how it is called.

use std::time::Duration;

use crate::config::{Faults, Section};
use crate::discovery::{Backends, EndpointSet, Whereabouts};
use crate::observability::metrics::MetricsSink;
use crate::resilience::{CircuitBreakerOptions, LoadBalancer};

use super::checks::CheckSettings;
use super::options::{CallSettings, RetrySettings};
use super::tls::Security;

/// The schemes that can be called.
const SCHEMES: &[&str] = if cfg!(feature = "tls") {
    &["http", "https"]
} else {
    &["http"]
};

/// What the configuration says about a service.
///
/// | key | default | |
/// |---|---|---|
/// | `urls` | this or `discovery` | the instances: scheme, host and port |
/// | `discovery.*` | | see `Backends`: who tells where the instances are |
/// | `timeout` | `10s` | of a call, all its attempts and waits included |
/// | `attempt_timeout` | what remains | of one attempt |
/// | `retry.attempts` | 3 | all attempts, the first one included |
/// | `retry.first`, `retry.max` | `50ms`, `2s` | the longest waits before the first repeat and of all |
/// | `retry.budget`, `retry.floor` | 0.2, 3 | repeats as a share of recent calls, and so many a second beside |
/// | `balance` | `p2c_ewma` | or `round_robin`, `random`, `least_request` |
/// | `breaker.*` | | see `CircuitBreakerOptions`; `breaker.enabled = false` for none |
/// | `health.*` | | see `CheckSettings`: endpoints are asked how they are |
/// | `concurrency`, `queue` | 256, 256 | calls at once, and waiting for their turn |
/// | `connect_timeout` | `2s` | |
/// | `idle_timeout` | `15s` | how long an unused connection is kept: less than servers keep theirs |
/// | `https_only` | `false` | an address in the clear is a mistake |
/// | `tls.ca_file` | the system's | PEM: the authorities that are trusted, and no others; read at the start, like the next two |
/// | `tls.certificate_file`, `tls.key_file` | | PEM, for a client certificate |
/// | `protocol` | `auto` | HTTP/2 where a server of TLS offers it; or `http1`, `http2` (in the clear too) |
/// | `cache.enabled` | `true` | whether methods with `#[cache]` keep answers |
/// | `cache.bytes_max` | `32MiB` | the room for all answers of the service |
/// | `stream_idle_timeout` | `30s` | the longest silence within an answer that is read while it comes |
/// | `response_bytes_max` | `16MiB` | longer answers are errors |
/// | `methods.NAME.timeout`, .. | | what is said of one method above |
#[derive(Clone, Debug)]
pub(crate) struct ServiceSettings {
    pub(crate) whereabouts: Whereabouts,
    pub(crate) call: CallSettings,
    /// By the name of the method.
    pub(crate) methods: Vec<(String, CallSettings)>,
    pub(crate) budget: f64,
    pub(crate) floor: u32,
    pub(crate) balance: LoadBalancer,
    pub(crate) breaker: Option<CircuitBreakerOptions>,
    pub(crate) checks: Option<CheckSettings>,
    pub(crate) concurrency: usize,
    pub(crate) queue: usize,
    pub(crate) connect_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) stream_idle_timeout: Duration,
    pub(crate) cache_enabled: bool,
    pub(crate) cache_bytes_max: u64,
    pub(crate) response_bytes_max: usize,
    pub(crate) security: Security,
}

impl ServiceSettings {
    /// What the configuration says of the method of this name.
    pub(crate) fn of_method(&self, name: &str) -> CallSettings {
        let found = self.methods.iter().find(|(known, _)| known == name);
        found.map_or(CallSettings::UNSET, |(_, settings)| *settings)
    }

    /// Reads the section of a service whose clients have these `methods`. `None` after pushing what
    /// is wrong.
    pub(crate) fn read(
        section: &Section<'_>,
        methods: &[&'static str],
        backends: &Backends,
        metrics: Option<&dyn MetricsSink>,
        faults: &mut Faults,
    ) -> Option<Self> {
        // Read once more by whoever says what is wrong with it.
        let https_only = section.bool("https_only", &mut Faults::new()) == Some(true);
        let callable = if https_only { &["https"] } else { SCHEMES };
        let whereabouts = backends.whereabouts(section, (SCHEMES, callable), metrics, faults);
        let retry = section.section("retry", faults);
        let named = section.section("methods", faults);
        let cache = section.section("cache", faults);
        let methods = methods.iter().map(|name| {
            let settings = read_call(&named.section(name, faults), faults);
            ((*name).to_owned(), settings)
        });
        let methods = methods.collect();
        let balance = section.choice("balance", LoadBalancer::NAMES, faults);
        let seconds = Duration::from_millis(1)..=Duration::from_secs(3_600);
        // Read also where the addresses are wrong, so that every mistake is found at once.
        let settings = Self {
            whereabouts: whereabouts.clone().unwrap_or_default(),
            call: read_call(section, faults),
            methods,
            budget: retry.float("budget", 0.0..=100.0, faults).unwrap_or(0.2),
            floor: retry.integer("floor", 0..=100_000, faults).unwrap_or(3),
            balance: balance.and_then(LoadBalancer::named).unwrap_or_default(),
            breaker: read_breaker(&section.section("breaker", faults), faults),
            checks: CheckSettings::read(&section.section("health", faults), faults),
            concurrency: section
                .integer("concurrency", 1..=1 << 20, faults)
                .unwrap_or(256),
            queue: section.integer("queue", 0..=1 << 20, faults).unwrap_or(256),
            connect_timeout: section
                .duration("connect_timeout", seconds.clone(), faults)
                .unwrap_or(Duration::from_secs(2)),
            idle_timeout: section
                .duration("idle_timeout", seconds, faults)
                .unwrap_or(Duration::from_secs(15)),
            cache_enabled: cache.bool("enabled", faults).unwrap_or(true),
            cache_bytes_max: cache
                .size("bytes_max", 1..=1 << 40, faults)
                .unwrap_or(32 << 20),
            stream_idle_timeout: section
                .nonzero_duration("stream_idle_timeout", faults)
                .unwrap_or(Duration::from_secs(30)),
            response_bytes_max: section
                .size("response_bytes_max", 1..=1 << 32, faults)
                .and_then(|bytes| usize::try_from(bytes).ok())
                .unwrap_or(16 << 20),
            security: Security::read(section, fixed(whereabouts.as_ref()), faults),
        };
        whereabouts.is_some().then_some(settings)
    }
}

/// The addresses, where they are known before anybody was asked.
fn fixed(whereabouts: Option<&Whereabouts>) -> Option<&EndpointSet> {
    match whereabouts {
        Some(Whereabouts::Fixed(endpoints)) => Some(endpoints),
        Some(Whereabouts::Watched(_)) | None => None,
    }
}

fn read_call(section: &Section<'_>, faults: &mut Faults) -> CallSettings {
    let retry = section.section("retry", faults);
    CallSettings {
        timeout: section.nonzero_duration("timeout", faults),
        attempt_timeout: section.nonzero_duration("attempt_timeout", faults),
        retry: RetrySettings {
            attempts: retry.integer("attempts", 1..=20, faults),
            first: retry.duration("first", .., faults),
            max: retry.duration("max", .., faults),
        },
    }
}

fn read_breaker(section: &Section<'_>, faults: &mut Faults) -> Option<CircuitBreakerOptions> {
    let mut options = CircuitBreakerOptions::DEFAULT;
    let shares = 0.001..=1.0;
    let mut set = |key: &str, place: &mut Duration| {
        if let Some(given) = section.nonzero_duration(key, faults) {
            *place = given;
        }
    };
    set("window", &mut options.window);
    set("open", &mut options.open);
    set("open_max", &mut options.open_max);
    set("probe_wait", &mut options.probe_wait);
    options.slow_call = section.nonzero_duration("slow_call", faults);
    if let Some(share) = section.float("failure_rate", shares.clone(), faults) {
        options.failure_rate = share;
    }
    if let Some(share) = section.float("slow_rate", shares, faults) {
        options.slow_rate = share;
    }
    if let Some(count) = section.integer("consecutive", 0..=1_000_000, faults) {
        options.consecutive = count;
    }
    if let Some(count) = section.integer("minimum_calls", 1..=60_000, faults) {
        options.minimum_calls = count;
    }
    if let Some(count) = section.integer("probes", 1..=1_000, faults) {
        options.probes = count;
    }
    let enabled = section.bool("enabled", faults).unwrap_or(true);
    enabled.then_some(options)
}
