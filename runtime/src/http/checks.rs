//! `[services.NAME.health]`: endpoints are asked how they are, so that calls need not find out.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderMap, Method};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::config::{Faults, Section};
use crate::discovery::{Endpoint, Examine, Examining};
use crate::observability::metrics::{HEALTH_CHECKS, Series};
use crate::resilience::EndpointHealth;

use super::body::Body;
use super::pool::{Pool, Target};
use super::stack::Stack;
use super::transport::Outgoing;

/// What is asked for where nothing else is said.
pub(super) const HEALTH_PATH: &str = "/health/ready";
/// As many checks of one service run at once.
const AT_ONCE: usize = 64;
/// The shortest time between two checks of one service, however many endpoints it has.
const STEP_MIN: Duration = Duration::from_millis(1);

/// How the endpoints of a service are checked.
///
/// | key of `[services.NAME.health]` | default | |
/// |---|---|---|
/// | `kind` | `http` | GET of `path` answers with a success, or `tcp`: it takes a connection |
/// | `path` | `/health/ready` | |
/// | `every` | `10s` | on average; the checks of a service are spread over this time |
/// | `timeout` | `2s` | of one check |
/// | `unhealthy_after` | 3 | failed checks in a row, and the endpoint gets no calls while there are enough others: see `ejection.panic` |
/// | `healthy_after` | 2 | good checks in a row, and it gets its share again |
///
/// Without the section nothing is checked: how calls go tells enough of most endpoints.
#[derive(Clone, Debug)]
pub(crate) struct CheckSettings {
    /// The path, or `None` where a connection is enough.
    path: Option<String>,
    every: Duration,
    timeout: Duration,
    unhealthy_after: u32,
    healthy_after: u32,
}

impl CheckSettings {
    /// `None` where nothing is to be checked.
    pub(super) fn read(section: &Section<'_>, faults: &mut Faults) -> Option<Self> {
        let tcp = section.choice("kind", &["http", "tcp"], faults) == Some("tcp");
        let path = section.string("path", faults);
        if tcp && path.is_some() {
            let fault = section.fault("path", "has no effect with `kind = \"tcp\"`");
            faults.push(fault.with_help("leave it out, or write `kind = \"http\"`"));
        }
        let path = path.unwrap_or_else(|| HEALTH_PATH.to_owned());
        if !path.starts_with('/') {
            let fault = section.fault("path", format!("`{path}` does not begin with a slash"));
            faults.push(fault.with_help("write for example `path = \"/health/ready\"`"));
        }
        let limits = Duration::from_millis(10)..=Duration::from_secs(3_600);
        let mut duration = |key, default| {
            let given = section.duration(key, limits.clone(), faults);
            given.unwrap_or(Duration::from_secs(default))
        };
        let (every, timeout) = (duration("every", 10), duration("timeout", 2));
        let mut count = |key, default| section.integer(key, 1..=100, faults).unwrap_or(default);
        let (unhealthy_after, healthy_after) =
            (count("unhealthy_after", 3), count("healthy_after", 2));
        section.is_present().then_some(Self {
            path: (!tcp).then_some(path),
            every,
            timeout,
            unhealthy_after,
            healthy_after,
        })
    }
}

/// What checks have told of one endpoint: healthy until they say otherwise.
#[derive(Debug)]
pub(super) struct Checked {
    health: Arc<EndpointHealth>,
    /// How many checks in a row said the other thing.
    against: Mutex<u32>,
}

impl Checked {
    pub(super) fn new(health: &Arc<EndpointHealth>) -> Self {
        Self {
            health: Arc::clone(health),
            against: Mutex::default(),
        }
    }

    pub(super) fn is_down(&self) -> bool {
        self.health.is_down()
    }

    /// Notes a check; whether the endpoint changed with it.
    fn note(&self, healthy: bool, settings: &CheckSettings) -> bool {
        let mut against = self.against.lock().unwrap_or_else(PoisonError::into_inner);
        let is_down = self.is_down();
        if healthy != is_down {
            *against = 0;
            return false;
        }
        *against += 1;
        let needed = if healthy {
            settings.healthy_after
        } else {
            settings.unhealthy_after
        };
        let changes = *against >= needed;
        if changes {
            *against = 0;
            self.health.checked(is_down);
        }
        changes
    }
}

/// What the checks of one service share.
struct Round {
    settings: CheckSettings,
    service: Arc<str>,
    good: Series,
    bad: Series,
}

/// Checks the endpoints of a service, those of the moment, until it is dropped.
pub(super) async fn run(stack: Arc<Stack>, settings: CheckSettings) {
    let series = |outcome: &str| {
        let labels = vec![Arc::clone(&stack.service), outcome.into()];
        Series::of(stack.environment.metrics.as_deref(), HEALTH_CHECKS, labels)
    };
    let round = Arc::new(Round {
        service: Arc::clone(&stack.service),
        good: series("healthy"),
        bad: series("unhealthy"),
        settings,
    });
    let rng = &stack.environment.rng;
    let every = round.settings.every;
    let mut running = JoinSet::new();
    loop {
        let pool = stack.pool();
        let count = pool.targets().count();
        if count == 0 {
            sleep(every.min(Duration::from_secs(1))).await;
            continue;
        }
        let step = (every / u32::try_from(count).unwrap_or(u32::MAX)).max(STEP_MIN);
        // From anywhere: a set that changes all the time is begun again all the time.
        let first = usize::try_from(rng.below(count as u64)).unwrap_or_default();
        for target in pool.targets().cycle().skip(first).take(count) {
            sleep(step.mul_f64(0.5 + rng.unit())).await;
            if !Arc::ptr_eq(&pool, &stack.pool()) {
                break;
            }
            while running.try_join_next().is_some() {}
            if running.len() >= AT_ONCE {
                // Each of them has its limit.
                running.join_next().await;
            }
            running.spawn(check(Arc::clone(target), Arc::clone(&round)));
        }
    }
}

async fn check(target: Arc<Target>, round: Arc<Round>) {
    let settings = &round.settings;
    let result = settings.ask(&target).await;
    let series = if result.is_ok() {
        &round.good
    } else {
        &round.bad
    };
    series.record(1.0);
    if target.checked.note(result.is_ok(), settings) {
        let (service, endpoint) = (&*round.service, &*target.url);
        match result {
            Ok(()) => tracing::info!(service, endpoint, "endpoint is healthy again"),
            Err(error) => tracing::warn!(service, endpoint, error, "endpoint is not healthy"),
        }
    }
}

impl CheckSettings {
    /// What is asked for, or `None` where a connection is enough.
    pub(super) fn path(&self) -> Option<&str> {
        self.path.as_deref()
    }

    /// How long an endpoint may take.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Asks the endpoint how it is.
    async fn ask(&self, target: &Target) -> Result<(), String> {
        let limit = self.timeout;
        let Some(path) = &self.path else {
            let endpoint = Endpoint::parse(&target.url)?;
            return target.transport.reach(&endpoint, limit).await.map(|_| ());
        };
        let request = Outgoing {
            method: Method::GET,
            door: target.door.clone(),
            url: target.address().of(path),
            headers: HeaderMap::new(),
            body: Body::None,
            streamed: false,
        };
        match timeout(limit, target.transport.send(request)).await {
            Ok(Ok(answer)) if answer.status.is_success() => Ok(()),
            Ok(Ok(answer)) => Err(format!("answers {}", answer.status)),
            Ok(Err(error)) => Err(super::stack::explain(&error)),
            Err(_) => Err(format!("no answer within {} ms", limit.as_millis())),
        }
    }
}

/// Asks the endpoints of a service as its configuration says.
struct Examiner {
    stack: Arc<Stack>,
    settings: CheckSettings,
}

/// What asks the endpoints of this service, if it is configured how.
pub(super) fn examine(stack: &Arc<Stack>) -> Option<Arc<dyn Examine>> {
    let settings = stack.settings.checks.clone()?;
    let stack = Arc::clone(stack);
    Some(Arc::new(Examiner { stack, settings }))
}

impl Examine for Examiner {
    fn examine(&self, endpoint: Endpoint) -> Examining {
        let (settings, target) = (self.settings.clone(), self.stack.pool().at(endpoint.url()));
        Box::pin(async move {
            let begun = Instant::now();
            // The set has changed since it was asked for.
            let target = target.ok_or("is not in use any more")?;
            settings.ask(&target).await?;
            Ok(begun.elapsed())
        })
    }
}

/// How many endpoints fail their checks.
pub(super) fn down(pool: &Pool) -> usize {
    pool.targets().filter(|one| one.checked.is_down()).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::resilience::{OutlierOptions, Outliers};

    fn read(lines: &str) -> Result<Option<CheckSettings>, String> {
        let config = Config::from_toml("interline.toml", lines).unwrap();
        let mut faults = Faults::new();
        let settings = CheckSettings::read(&config.section("health"), &mut faults);
        config.finish(&mut faults);
        faults.into_result().map_err(|error| error.to_string())?;
        Ok(settings)
    }

    #[test]
    fn an_endpoint_changes_after_enough_checks_in_a_row() {
        let settings = read("[health]\nunhealthy_after = 3\nhealthy_after = 2");
        let settings = settings.unwrap().unwrap();
        let outliers = Outliers::new(OutlierOptions::DEFAULT);
        let checked = Checked::new(&Arc::new(outliers.join(None)));
        let checks = [
            (false, false),
            (false, false),
            (true, false),
            (false, false),
            (false, false),
            (false, true),
            (true, true),
            (false, true),
            (true, true),
            (true, false),
            (false, false),
        ];
        for (place, (healthy, down)) in checks.into_iter().enumerate() {
            let before = checked.is_down();
            assert_eq!(checked.note(healthy, &settings), before != down, "{place}");
            assert_eq!(checked.is_down(), down, "{place}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert!(read("").unwrap().is_none());
        assert!(read("[health]").unwrap().unwrap().path.is_some());
        assert!(
            read("[health]\nkind = \"tcp\"")
                .unwrap()
                .unwrap()
                .path
                .is_none()
        );
        for (lines, text) in [
            ("path = \"health\"", "does not begin with a slash"),
            (
                "kind = \"tcp\"\npath = \"/x\"",
                "has no effect with `kind = \"tcp\"`",
            ),
            ("healthy_after = 0", "health.healthy_after"),
            ("evry = \"1s\"", "did you mean `every`?"),
        ] {
            let error = read(&format!("[health]\n{lines}")).unwrap_err();
            assert!(error.contains(text), "{lines}\n{error}");
        }
    }
}
