//! What a program asks about services, and where it registers them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use crate::clock::Rng;
use crate::config::suggest::suggest;
use crate::error::{CommunicationError, CommunicationErrorKind};
use crate::observability::metrics::MetricsSink;

use super::registration::NamedRegistrar;
use super::{
    Endpoint, EndpointSet, Registration, RegistrationStatus, Registrations, ServiceInstance,
    Whereabouts,
    reach::{Examine, reach},
};

/// How long a registration is waited for.
const REGISTERED_MAX: Duration = Duration::from_secs(10);
/// How long a registration may take to be taken away.
const DEREGISTERED_MAX: Duration = Duration::from_secs(5);

/// How long a connection may take that only tells whether it can be made.
const CHECK_MAX: Duration = Duration::from_secs(2);
/// As many instances are asked at once.
const CHECKS_AT_ONCE: usize = 64;

/// Whether an instance can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EndpointCheck {
    /// The instance.
    pub endpoint: Endpoint,
    /// How long it took to answer, or to connect; or why it did not work.
    pub result: Result<Duration, String>,
}

/// Knows where the configured services are, and keeps instances registered: taken from
/// [`CommunicationManager::discovery`](crate::CommunicationManager::discovery). Cheap to clone.
///
/// ```no_run
/// use interline::discovery::{Endpoint, ServiceInstance};
///
/// # async fn example(running: interline::Running) -> interline::Result<()> {
/// let discovery = running.manager().discovery();
/// for endpoint in discovery.discover_service("orders").await?.iter() {
///     println!("{endpoint}");
/// }
/// let admin = Endpoint::parse("http://10.0.0.7:9000").map_err(std::io::Error::other)?;
/// discovery.register_service(ServiceInstance::new("billing-admin", "billing-7", admin)).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ServiceDiscoveryManager(Arc<Inner>);

struct Inner {
    services: BTreeMap<Arc<str>, Whereabouts>,
    /// By the service: how its instances are asked, where something else is configured than a connection.
    examines: BTreeMap<Arc<str>, Arc<dyn Examine>>,
    registrars: Vec<NamedRegistrar>,
    own: Option<Own>,
    rng: Rng,
    metrics: Option<Arc<dyn MetricsSink>>,
    registered: Mutex<Registered>,
}

/// How this program registers itself.
pub(super) struct Own {
    pub(super) instance: ServiceInstance,
    pub(super) registrars: Vec<NamedRegistrar>,
    pub(super) propagation: Duration,
}

#[derive(Default)]
struct Registered {
    all: Vec<Arc<Registration>>,
    /// Nothing is registered any more once the program goes down.
    closed: bool,
}

impl ServiceDiscoveryManager {
    pub(crate) fn new(
        services: BTreeMap<Arc<str>, Whereabouts>,
        examines: BTreeMap<Arc<str>, Arc<dyn Examine>>,
        registrations: Registrations,
        rng: &Rng,
        metrics: Option<Arc<dyn MetricsSink>>,
    ) -> Self {
        Self(Arc::new(Inner {
            services,
            examines,
            registrars: registrations.registrars,
            own: registrations.own,
            rng: rng.clone(),
            metrics,
            registered: Mutex::default(),
        }))
    }

    /// Registers an instance at every backend of the configuration that can, and keeps it registered
    /// until [`deregister_service`](Self::deregister_service) or until the program goes down. One of
    /// the same service and identity is replaced.
    ///
    /// # Errors
    /// Of kind [`ServiceDiscovery`](CommunicationErrorKind::ServiceDiscovery) if no backend can; or if
    /// some have not done it within ten seconds, with why: they are asked on and on all the same. Of
    /// kind [`Shutdown`](CommunicationErrorKind::Shutdown) if the program goes down.
    pub async fn register_service(
        &self,
        instance: ServiceInstance,
    ) -> Result<(), CommunicationError> {
        if self.0.registrars.is_empty() {
            let text = "no backend in `[discovery]` can register an instance; \
                        one of `kind = \"directory\"` can";
            return Err(failed(text));
        }
        self.deregister_service(&instance.service, &instance.id)
            .await;
        let deadline = Instant::now() + REGISTERED_MAX;
        let registration = self.begin(instance, &self.0.registrars)?;
        let registered = registration.registered(deadline).await;
        registered.map_err(|why| {
            let service = &registration.instance().service;
            let text = format!("`{service}` is not registered everywhere yet: {why}");
            failed(&text).with_retryable(true)
        })
    }

    /// Takes the registration of an instance away. Whether there was one.
    pub async fn deregister_service(&self, service: &str, id: &str) -> bool {
        let is_meant = |one: &Arc<Registration>| {
            let instance = one.instance();
            *instance.service == *service && *instance.id == *id
        };
        let found = {
            let mut registered = self.registered();
            let place = registered.all.iter().position(is_meant);
            place.map(|place| registered.all.swap_remove(place))
        };
        let Some(registration) = found else {
            return false;
        };
        registration
            .deregister(Instant::now() + DEREGISTERED_MAX)
            .await;
        true
    }

    /// All instances of a configured service that are in use now. Waits for the first answer as calls
    /// do.
    ///
    /// # Errors
    /// Of kind [`ServiceDiscovery`](CommunicationErrorKind::ServiceDiscovery) if the service is not
    /// configured, or if nobody has told yet where it is, with why. That there is none is no error.
    pub async fn discover_service(
        &self,
        service: &str,
    ) -> Result<Arc<EndpointSet>, CommunicationError> {
        let watch = match self.0.services.get(service) {
            Some(Whereabouts::Fixed(endpoints)) => return Ok(Arc::clone(endpoints)),
            Some(Whereabouts::Watched(watch)) => watch,
            None => {
                let near = suggest(service, self.0.services.keys().map(|name| &**name));
                let near = near.map_or(String::new(), |near| format!(" (there is `{near}`)"));
                let text = format!(
                    "service `{service}` is not configured; write `[services.{service}]`{near}"
                );
                return Err(failed(&text));
            }
        };
        let mut snapshots = watch.snapshots();
        let until = Instant::now() + watch.first_answer();
        let resolved = timeout_at(until, snapshots.wait_for(|one| one.resolved)).await;
        match resolved {
            Ok(Ok(snapshot)) => Ok(Arc::clone(&snapshot.endpoints)),
            _ => {
                let text = format!("it is not known where `{service}` is: {}", watch.why());
                Err(failed(&text).with_retryable(true))
            }
        }
    }

    /// Asks every instance of a configured service that is in use now how it is, and tells what each
    /// says: as `[services.NAME.health]` says, or by a connection where it says nothing. What one
    /// instance says to a call is told by [`HttpClient::health_check`](crate::HttpClient::health_check).
    ///
    /// # Errors
    /// As [`discover_service`](Self::discover_service).
    pub async fn health_check_service(
        &self,
        service: &str,
    ) -> Result<Vec<EndpointCheck>, CommunicationError> {
        let endpoints = self.discover_service(service).await?;
        let examine = self.0.examines.get(service);
        let mut checks = Vec::with_capacity(endpoints.len());
        let mut running = tokio::task::JoinSet::new();
        for endpoint in endpoints.iter().cloned() {
            if running.len() >= CHECKS_AT_ONCE
                && let Some(check) = running.join_next().await
            {
                checks.extend(check);
            }
            let examine = examine.cloned();
            running.spawn(async move {
                let result = match examine {
                    Some(examine) => examine.examine(endpoint.clone()).await,
                    None => reach(&endpoint, CHECK_MAX).await,
                };
                EndpointCheck { endpoint, result }
            });
        }
        checks.extend(running.join_all().await);
        checks.sort_by(|one, two| one.endpoint.url().cmp(two.endpoint.url()));
        Ok(checks)
    }

    /// What is registered where.
    #[must_use]
    pub fn registrations(&self) -> Vec<RegistrationStatus> {
        let registered = self.registered();
        registered.all.iter().flat_map(|one| one.status()).collect()
    }

    /// If this program is to be registered, its address and where, in words.
    pub(crate) fn registers_itself(&self) -> Option<(String, String)> {
        let own = self.0.own.as_ref()?;
        let at = own.registrars.iter();
        let at = at.map(|one| format!("`{}` ({})", one.name, one.registrar.kind()));
        let at = at.collect::<Vec<_>>().join(", ");
        let url = own.instance.endpoint.url().to_owned();
        Some((url, format!("registered at {at}")))
    }

    /// Registers this program, if that is configured and it does not go down.
    pub(crate) fn register_itself(&self) {
        if let Some(own) = &self.0.own {
            // It fails only where the program goes down, and then nothing is to be registered.
            let _ = self.begin(own.instance.clone(), &own.registrars);
        }
    }

    /// Takes everything away for good, and gives others the time to notice: a part of what is left
    /// until `deadline`.
    pub(crate) async fn leave(&self, deadline: Instant) {
        let all = {
            let mut registered = self.registered();
            registered.closed = true;
            registered.all.clone()
        };
        if all.is_empty() {
            return;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let until = Instant::now() + DEREGISTERED_MAX.min(left / 4);
        let mut leaving = tokio::task::JoinSet::new();
        for registration in all {
            leaving.spawn(async move { registration.deregister(until).await });
        }
        leaving.join_all().await;
        if let Some(own) = &self.0.own {
            sleep(own.propagation.min(left / 4)).await;
        }
        self.registered().all.clear();
    }

    /// Ends as a crash does: what is registered stays until its time is over.
    #[cfg(feature = "testing")]
    pub(crate) fn abandon(&self) {
        let mut registered = self.registered();
        registered.closed = true;
        for registration in registered.all.drain(..) {
            registration.abandon();
        }
    }

    fn begin(
        &self,
        instance: ServiceInstance,
        registrars: &[NamedRegistrar],
    ) -> Result<Arc<Registration>, CommunicationError> {
        let mut registered = self.registered();
        if registered.closed {
            let text = "the app goes down, nothing is registered any more";
            return Err(CommunicationError::new(
                CommunicationErrorKind::Shutdown,
                text,
            ));
        }
        let metrics = self.0.metrics.as_deref();
        let registration = Registration::begin(instance, registrars, &self.0.rng, metrics);
        let registration = Arc::new(registration);
        registered.all.push(Arc::clone(&registration));
        Ok(registration)
    }

    fn registered(&self) -> MutexGuard<'_, Registered> {
        let registered = self.0.registered.lock();
        registered.unwrap_or_else(PoisonError::into_inner)
    }
}

fn failed(text: &str) -> CommunicationError {
    CommunicationError::new(CommunicationErrorKind::ServiceDiscovery, text)
}

impl fmt::Debug for ServiceDiscoveryManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceDiscoveryManager")
            .field("services", &self.0.services)
            .field("registrations", &self.registrations())
            .finish_non_exhaustive()
    }
}
