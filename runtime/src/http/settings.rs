//! `[services.NAME]`: where a service is and how it is called.

use std::sync::Arc;
use std::time::Duration;

use crate::config::{Faults, Section};
use crate::discovery::{Backends, EndpointSet, Whereabouts, host_name};
use crate::observability::metrics::MetricsSink;
#[cfg(feature = "redis")]
use crate::resilience::SharedRateSettings;
use crate::resilience::{CircuitBreakerOptions, Jitter, LoadBalancer, OutlierOptions};

use super::checks::CheckSettings;
use super::contradictions;
use super::judge::{Judge, Judgment};
use super::options::{CallSettings, RetrySettings};
use super::tls::Security;
use super::transport::Ways;

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
/// | `host` | as discovery says, or the address | the name by which all instances are called, wherever they are: the one in their certificate, and in the requests |
/// | `timeout` | `10s` | of a call, all its attempts and waits included |
/// | `attempt_timeout` | what remains | of one attempt. Where neither it nor `hedge` is set, and more than one attempt may be made, what may be repeated is sent to another instance too when half of the time is over, as a repeat, and the first answer counts |
/// | `retry.attempts` | 3 | all attempts, the first one included |
/// | `retry.first`, `retry.max` | `50ms`, `2s` or `retry.first` if that is longer | the longest waits before the first repeat and of all |
/// | `retry.jitter` | `full` | how the waits are drawn: from nothing to the longest; `equal`: from half of it; `decorrelated`: from `first` to three times the wait before; `none`: the longest |
/// | `retry.budget`, `retry.floor` | 0.2, 3 | repeats as a share of recent calls, and at least so many a second |
/// | `mode` | `direct` | `mesh`: one address with a mesh behind it, which repeats and ejects by itself |
/// | `hedge.after` | never | a call that may be repeated is sent a second time when it has not been answered then |
/// | `hedge.percentile` | none | 50 to 99: it is sent when the first has taken longer than so many in a hundred calls of the method usually do (those without a trait: of the service); `hedge.after` is then the least, and what counts while too little is known |
/// | `hedge.share` | 0.05 | of the successful calls, may be sent a second time |
/// | `rate.count`, `rate.per` | no limit, `1s` | so many attempts may start in each such time |
/// | `rate.burst` | `rate.count` | so many may start at once after a pause |
/// | `rate.redis.*` | each instance its own | the instances keep the rate together; see `SharedRateSettings` |
/// | `rate.wait` | `0s` | how long an attempt may wait for its turn; one that would wait longer is refused at once |
/// | `balance` | `p2c_ewma` | or `round_robin`, `weighted`, `random`, `least_request`, `ring_hash`, `zone_aware` |
/// | `weights."URL"` | 1 | for `weighted` and `ring_hash`: from 1 to 100 |
/// | `zones.NAME` | | for `zone_aware`: the `urls` in that zone; the caller's own is `service.zone` |
/// | `ejection.max_share` | 0.5 | of the endpoints, are left alone at once because their circuits are open |
/// | `ejection.panic` | 0.5 | where a smaller share is healthy, by calls and by checks, all are called |
/// | `slow_start` | `10s` | over which an endpoint that is new, or was left alone, gets its share; `0s` for at once; not with `ring_hash` |
/// | `breaker.*` | | see `CircuitBreakerOptions`; `breaker.enabled = false` for none |
/// | `breaker.failures` | `["5xx"]`, and 429 for the share | which statuses are failures of an instance and of the service: `["503", "429"]`, `["4xx", "5xx"]`; the others are none |
/// | `health.*` | | see `CheckSettings`: endpoints are asked how they are |
/// | `concurrency`, `queue` | 256, 256 | calls at once, with the answers that are still being read, and calls waiting for their turn |
/// | `connect_timeout` | `2s` | |
/// | `idle_timeout` | `15s` | how long an unused connection is kept: less than servers keep theirs |
/// | `connection_age_max` | `5m` | how old a connection may become: the next one finds a name that has moved, and a balancer can spread it anew; no call is cut for it; `0s` for any age |
/// | `https_only` | `false` | an address in the clear is a mistake |
/// | `tls.ca_file` | the system's | PEM: the authorities that are trusted, and no others |
/// | `tls.certificate_file`, `tls.key_file` | | PEM, for a client certificate |
/// | `tls.reload` | `30s` | how often these files are looked at; what has changed counts for new connections, and what is wrong for none; `0s` for only at the start |
/// | `protocol` | `auto` | HTTP/2 where a server of TLS offers it; or `http1`, `http2` (in the clear too) |
/// | `cache.enabled` | `true` | whether methods with `#[cache]` keep answers |
/// | `cache.bytes_max` | `32MiB` | the room for all answers of the service |
/// | `stream_idle_timeout` | `30s` | the longest silence within an answer that is read while it comes; with a longer one the stream ends with an error, which counts as a failure of the instance unless it is a stream of events |
/// | `response_bytes_max` | `16MiB` | longer answers are errors; of what is no success so much is kept, and at most 64 KiB |
/// | `methods.NAME.timeout`, .. | | what is said of one method above |
#[derive(Clone, Debug)]
pub(crate) struct ServiceSettings {
    pub(crate) whereabouts: Whereabouts,
    /// The name by which the instances are called.
    pub(crate) host: Option<Arc<str>>,
    pub(crate) call: CallSettings,
    /// By the name of the method.
    pub(crate) methods: Vec<(String, CallSettings)>,
    pub(crate) budget: f64,
    pub(crate) floor: u32,
    pub(crate) mesh: bool,
    pub(crate) hedge_share: f64,
    pub(crate) rate: Option<RateSettings>,
    pub(crate) balance: LoadBalancer,
    /// Where this program runs.
    pub(crate) zone: Option<Arc<str>>,
    pub(crate) outliers: OutlierOptions,
    pub(crate) judge: Judge,
    pub(crate) breaker: Option<CircuitBreakerOptions>,
    pub(crate) checks: Option<CheckSettings>,
    pub(crate) concurrency: usize,
    pub(crate) queue: usize,
    pub(super) ways: Ways,
    /// `None` for any age.
    pub(super) connection_age_max: Option<Duration>,
    pub(crate) stream_idle_timeout: Duration,
    pub(crate) cache_enabled: bool,
    pub(crate) cache_bytes_max: u64,
    pub(crate) response_bytes_max: usize,
    pub(crate) security: Security,
}

/// `[services.NAME.rate]`
#[derive(Clone, Debug)]
pub(crate) struct RateSettings {
    pub(crate) count: u32,
    pub(crate) per: Duration,
    pub(crate) burst: u32,
    /// How long an attempt may wait for its turn.
    pub(crate) wait: Duration,
    /// Where the instances keep it together.
    #[cfg(feature = "redis")]
    pub(crate) shared: Option<SharedRateSettings>,
}

impl ServiceSettings {
    /// What the configuration says of the method of this name.
    pub(crate) fn of_method(&self, name: &str) -> CallSettings {
        let found = self.methods.iter().find(|(known, _)| known == name);
        found.map_or(CallSettings::UNSET, |(_, settings)| *settings)
    }

    /// Reads the section of a service whose clients have these `methods`, and whose answers the program
    /// may judge itself. `None` after pushing what is wrong.
    pub(crate) fn read(
        section: &Section<'_>,
        methods: &[&'static str],
        judgment: Option<&Judgment>,
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
        let call = read_call(section, &CallSettings::UNSET, faults);
        let cache = section.section("cache", faults);
        let methods = methods.iter().map(|name| {
            let settings = read_call(&named.section(name, faults), &call, faults);
            ((*name).to_owned(), settings)
        });
        let methods = methods.collect();
        let balance = read_balance(section, faults);
        let mesh = read_mode(section, fixed(whereabouts.as_ref()), faults);
        let seconds = Duration::from_millis(1)..=Duration::from_secs(3_600);
        // Read also where the addresses are wrong, so that every mistake is found at once.
        let settings = Self {
            whereabouts: whereabouts.clone().unwrap_or_default(),
            host: read_host(section, faults),
            call,
            methods,
            budget: retry.float("budget", 0.0..=100.0, faults).unwrap_or(0.2),
            floor: retry.integer("floor", 0..=100_000, faults).unwrap_or(3),
            mesh,
            hedge_share: section
                .section("hedge", faults)
                .float("share", 0.0..=1.0, faults)
                .unwrap_or(0.05),
            rate: read_rate(&section.section("rate", faults), section.name(), faults),
            balance,
            zone: None,
            outliers: read_outliers(section, balance, faults),
            judge: Judge::read(&section.section("breaker", faults), judgment, faults),
            breaker: read_breaker(&section.section("breaker", faults), faults),
            checks: CheckSettings::read(&section.section("health", faults), faults),
            concurrency: section
                .integer("concurrency", 1..=1 << 20, faults)
                .unwrap_or(256),
            queue: section.integer("queue", 0..=1 << 20, faults).unwrap_or(256),
            ways: Ways {
                connect_timeout: section
                    .duration("connect_timeout", seconds.clone(), faults)
                    .unwrap_or(Duration::from_secs(2)),
                idle_timeout: section
                    .duration("idle_timeout", seconds, faults)
                    .unwrap_or(Duration::from_secs(15)),
            },
            connection_age_max: period(
                section
                    .duration("connection_age_max", .., faults)
                    .unwrap_or(AGE_MAX),
                section,
                "connection_age_max",
                faults,
            ),
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

fn read_host(section: &Section<'_>, faults: &mut Faults) -> Option<Arc<str>> {
    let text = section.string("host", faults)?;
    match host_name(&text) {
        Ok(host) => Some(host.into()),
        Err(why) => {
            let fault = section.fault("host", format!("`{text}` {why}"));
            faults.push(fault);
            None
        }
    }
}

/// How old a connection may become unless something else is said.
const AGE_MAX: Duration = Duration::from_secs(5 * 60);
/// A time after which something happens again; `None` where that is never, which is written `0s`.
pub(super) fn period(
    given: Duration,
    section: &Section<'_>,
    key: &str,
    faults: &mut Faults,
) -> Option<Duration> {
    let limits = Duration::from_millis(10)..=Duration::from_secs(86_400);
    if !given.is_zero() && !limits.contains(&given) {
        let fault = section.fault(key, "is not between 10 ms and a day");
        faults.push(fault.with_help("write for example `30s`, or `0s` for never"));
    }
    (!given.is_zero()).then_some(given)
}

/// The addresses, where they are known before anybody was asked.
fn fixed(whereabouts: Option<&Whereabouts>) -> Option<&EndpointSet> {
    match whereabouts {
        Some(Whereabouts::Fixed(endpoints)) => Some(endpoints),
        Some(Whereabouts::Watched(_)) | None => None,
    }
}

fn read_balance(section: &Section<'_>, faults: &mut Faults) -> LoadBalancer {
    let named = section.choice("balance", LoadBalancer::NAMES, faults);
    let balance = named.and_then(LoadBalancer::named).unwrap_or_default();
    let weighing = matches!(balance, LoadBalancer::Weighted | LoadBalancer::RingHash);
    let zoned = balance == LoadBalancer::ZoneAware;
    for (key, heard, remedy) in [
        ("weights", weighing, "weighted"),
        ("zones", zoned, "zone_aware"),
    ] {
        if section.contains(key) && !heard {
            let message = "has no effect with this `balance`";
            let help = format!("write `balance = \"{remedy}\"`, or leave it out");
            faults.push(section.fault(key, message).with_help(help));
        }
    }
    balance
}

/// Whether there is a mesh behind the address.
fn read_mode(section: &Section<'_>, endpoints: Option<&EndpointSet>, faults: &mut Faults) -> bool {
    let mesh = section.choice("mode", &["direct", "mesh"], faults) == Some("mesh");
    if !mesh {
        return false;
    }
    if endpoints.is_some_and(|endpoints| endpoints.len() > 1) {
        let fault = section.fault("urls", "names several addresses, and a mesh has one");
        faults.push(fault.with_help("name the service's address in the mesh, or leave out `mode`"));
    }
    for key in [
        "balance",
        "discovery",
        "ejection",
        "hedge",
        "retry",
        "slow_start",
    ] {
        if section.contains(key) {
            let message = "has no effect with `mode = \"mesh\"`: that is the mesh's business";
            faults.push(section.fault(key, message).with_help("leave it out"));
        }
    }
    mesh
}

fn read_outliers(
    section: &Section<'_>,
    balance: LoadBalancer,
    faults: &mut Faults,
) -> OutlierOptions {
    if section.contains("slow_start") && balance == LoadBalancer::RingHash {
        let message =
            "has no effect with `balance = \"ring_hash\"`: a key goes to its endpoint at once";
        faults.push(
            section
                .fault("slow_start", message)
                .with_help("leave it out"),
        );
    }
    let ejection = section.section("ejection", faults);
    let mut options = OutlierOptions::DEFAULT;
    if let Some(share) = ejection.float("max_share", 0.0..=1.0, faults) {
        options.max_share = share;
    }
    if let Some(share) = ejection.float("panic", 0.0..=1.0, faults) {
        options.panic = share;
    }
    let limits = Duration::ZERO..=Duration::from_secs(3_600);
    if let Some(over) = section.duration("slow_start", limits, faults) {
        options.slow_start = over;
    }
    options
}

fn read_rate(
    section: &Section<'_>,
    #[cfg_attr(
        not(feature = "redis"),
        expect(unused_variables, reason = "names a key there")
    )]
    service: &str,
    faults: &mut Faults,
) -> Option<RateSettings> {
    let count = section.integer("count", 1..=100_000_000, faults);
    let limits = Duration::from_millis(1)..=Duration::from_secs(86_400);
    let per = section.duration("per", limits, faults);
    let burst = section.integer("burst", 1..=100_000_000, faults);
    let wait = section.duration("wait", .., faults);
    #[cfg(feature = "redis")]
    let shared = {
        let redis = section.section("redis", faults);
        let shared = SharedRateSettings::read(&redis, service, faults);
        redis.is_present().then_some(shared)
    };
    #[cfg(not(feature = "redis"))]
    if section.contains("redis") {
        let fault = section.fault("redis", "needs Redis, which this build leaves out");
        faults.push(fault.with_help("add the feature `redis` of interline"));
        section.section("redis", faults).accept_all(faults);
    }
    if section.is_present() && !section.contains("count") {
        let fault = section.fault("count", "is missing");
        faults.push(fault.with_help("write for example `count = 100`"));
    }
    let count = count?;
    Some(RateSettings {
        count,
        per: per.unwrap_or(Duration::from_secs(1)),
        burst: burst.unwrap_or(count),
        wait: wait.unwrap_or_default(),
        #[cfg(feature = "redis")]
        shared,
    })
}

/// What the section says of calls, above what is said of all of them.
fn read_call(section: &Section<'_>, of_all: &CallSettings, faults: &mut Faults) -> CallSettings {
    let said = read_said(section, faults);
    // Told, and no more: an attribute of a method, which is not known here, may give each of them an effect.
    let mut doubts = Faults::new();
    contradictions::check(section, &said, of_all, &mut doubts);
    for doubt in doubts.iter() {
        tracing::warn!("{doubt}");
    }
    said
}

pub(super) fn read_said(section: &Section<'_>, faults: &mut Faults) -> CallSettings {
    let retry = section.section("retry", faults);
    let hedge = section.section("hedge", faults);
    CallSettings {
        timeout: section.nonzero_duration("timeout", faults),
        attempt_timeout: section.nonzero_duration("attempt_timeout", faults),
        retry: RetrySettings {
            attempts: retry.integer("attempts", 1..=20, faults),
            first: retry.duration("first", .., faults),
            max: retry.duration("max", .., faults),
            jitter: retry
                .choice("jitter", Jitter::NAMES, faults)
                .and_then(Jitter::named),
            hedge: hedge.nonzero_duration("after", faults),
            hedge_percentile: hedge.integer("percentile", 50..=99, faults),
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
