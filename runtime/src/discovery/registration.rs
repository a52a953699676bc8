//! An instance at its backends: registered, kept alive, registered again when it was forgotten, and
//! taken away.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::clock::Rng;
use crate::observability::metrics::{MetricsSink, REGISTERED, Series};

use super::{Registrar, RegistrarError, ServiceInstance};

/// How long one step at a backend may take.
const STEP_MAX: Duration = Duration::from_secs(5);
/// The waits between failed steps.
const PAUSE: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// How far the registration at one backend is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegistrationState {
    /// It is registered and the last heartbeats came through.
    Active,
    /// It is being taken away.
    Deregistering,
    /// It was taken away.
    Gone,
    /// It was registered, and is not any more as far as anybody knows: it is being registered again.
    Lost,
    /// It is not registered yet.
    Registering,
}

/// The registration at one backend.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RegistrationStatus {
    /// The service.
    pub service: Arc<str>,
    /// The instance.
    pub instance: Arc<str>,
    /// The backend's name in the configuration.
    pub backend: Arc<str>,
    /// Its kind.
    pub kind: &'static str,
    /// How far it is.
    pub state: RegistrationState,
    /// Why the last step failed, if it did.
    pub error: Option<String>,
}

/// A registrar with its name.
#[derive(Clone)]
pub(super) struct NamedRegistrar {
    pub(super) name: Arc<str>,
    pub(super) registrar: Arc<dyn Registrar>,
}

/// What one backend is told and tells.
#[derive(Clone, Debug)]
struct Step {
    state: RegistrationState,
    error: Option<String>,
}

/// An instance that is kept registered until [`deregister`](Self::deregister).
pub(crate) struct Registration {
    instance: Arc<ServiceInstance>,
    at: Vec<(NamedRegistrar, watch::Receiver<Step>)>,
    stop: watch::Sender<bool>,
    tasks: Vec<AbortHandle>,
}

impl Registration {
    /// Begins to register the instance at all of these backends, in tasks that go on when this is
    /// dropped.
    pub(super) fn begin(
        instance: ServiceInstance,
        registrars: &[NamedRegistrar],
        rng: &Rng,
        metrics: Option<&dyn MetricsSink>,
    ) -> Self {
        let instance = Arc::new(instance);
        let stop = watch::Sender::new(false);
        let mut tasks = Vec::with_capacity(registrars.len());
        let at = registrars.iter().map(|registrar| {
            let (told, status) = watch::channel(Step {
                state: RegistrationState::Registering,
                error: None,
            });
            let labels = vec![Arc::clone(&instance.service), Arc::clone(&registrar.name)];
            let keeper = Keeper {
                instance: Arc::clone(&instance),
                registrar: registrar.clone(),
                rng: rng.clone(),
                told,
                stop: stop.subscribe(),
                registered: Series::of(metrics, REGISTERED, labels),
            };
            tasks.push(tokio::spawn(keeper.run()).abort_handle());
            (registrar.clone(), status)
        });
        Self {
            at: at.collect(),
            instance,
            stop,
            tasks,
        }
    }

    /// Goes no further: what is registered stays until its time is over.
    pub(super) fn abandon(&self) {
        for task in &self.tasks {
            task.abort();
        }
    }

    pub(crate) fn instance(&self) -> &Arc<ServiceInstance> {
        &self.instance
    }

    pub(crate) fn status(&self) -> Vec<RegistrationStatus> {
        let all = self.at.iter().map(|(registrar, step)| {
            let step = step.borrow().clone();
            RegistrationStatus {
                service: Arc::clone(&self.instance.service),
                instance: Arc::clone(&self.instance.id),
                backend: Arc::clone(&registrar.name),
                kind: registrar.registrar.kind(),
                state: step.state,
                error: step.error,
            }
        });
        all.collect()
    }

    /// Waits until every backend has it, or some have failed so far and `deadline` has come.
    pub(crate) async fn registered(&self, deadline: Instant) -> Result<(), String> {
        let is_there = |step: &Step| step.state == RegistrationState::Active;
        let mut missing = Vec::new();
        for (registrar, step) in &self.at {
            let mut step = step.clone();
            if timeout_at(deadline, step.wait_for(is_there)).await.is_err() {
                let why = step.borrow().error.clone();
                let why = why.unwrap_or_else(|| "has not answered".to_owned());
                missing.push(format!("`{}`: {why}", registrar.name));
            }
        }
        if missing.is_empty() {
            Ok(())
        } else {
            Err(missing.join("; "))
        }
    }

    /// Takes it away everywhere. What cannot be taken away until `deadline` is left to its time to live.
    pub(crate) async fn deregister(&self, deadline: Instant) {
        self.stop.send_replace(true);
        for (registrar, step) in &self.at {
            let mut step = step.clone();
            let gone = step.wait_for(|step| step.state == RegistrationState::Gone);
            if timeout_at(deadline, gone).await.is_err() {
                let (service, backend) = (&*self.instance.service, &*registrar.name);
                let text = "the registration is left to its time to live";
                tracing::warn!(service, backend, "{text}");
            }
        }
        self.abandon();
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration")
            .field("instance", &self.instance)
            .finish_non_exhaustive()
    }
}

/// Keeps the registration at one backend.
struct Keeper {
    instance: Arc<ServiceInstance>,
    registrar: NamedRegistrar,
    rng: Rng,
    told: watch::Sender<Step>,
    stop: watch::Receiver<bool>,
    registered: Series,
}

impl Keeper {
    async fn run(mut self) {
        while !self.is_stopped() {
            if self.register().await {
                self.keep_alive().await;
            }
        }
        // Also where it was never seen registered: the step may have worked and its answer been lost.
        self.tell(RegistrationState::Deregistering, None);
        let mut failures = 0;
        loop {
            let step = self
                .registrar
                .registrar
                .deregister(Arc::clone(&self.instance));
            match within(STEP_MAX, step).await {
                Ok(()) | Err(RegistrarError::Unknown) => break,
                Err(RegistrarError::Failed(why)) => {
                    self.tell(RegistrationState::Deregistering, Some(why));
                    sleep(self.pause(failures)).await;
                    failures += 1;
                    // Nobody finds it any more then.
                    if failures > 100 {
                        break;
                    }
                }
            }
        }
        self.tell(RegistrationState::Gone, None);
    }

    /// Registers it. Whether it is: it is not where it was told to stop.
    async fn register(&mut self) -> bool {
        let mut failures = 0;
        while !self.is_stopped() {
            // It is not cut off when it is told to stop: a registration that came through after it
            // was taken away would stay.
            let step = self
                .registrar
                .registrar
                .register(Arc::clone(&self.instance));
            match within(STEP_MAX, step).await {
                Ok(()) => {
                    self.tell(RegistrationState::Active, None);
                    return true;
                }
                Err(error) => {
                    let state = self.told.borrow().state;
                    self.tell(state, Some(error.to_string()));
                    self.rest(self.pause(failures)).await;
                    failures += 1;
                }
            }
        }
        false
    }

    /// Sends heartbeats until it is forgotten, lost or told to stop.
    async fn keep_alive(&mut self) {
        let ttl = self.registrar.registrar.ttl();
        let mut alive = Instant::now();
        let mut failures = 0;
        loop {
            let wait = if failures == 0 {
                // Not all instances of a deployment at once.
                (ttl / 3).mul_f64(0.8 + 0.2 * self.rng.unit())
            } else {
                self.pause(failures).min(ttl / 6)
            };
            self.rest(wait).await;
            if self.is_stopped() {
                return;
            }
            let begun = Instant::now();
            let step = self
                .registrar
                .registrar
                .heartbeat(Arc::clone(&self.instance));
            match within(STEP_MAX.min(ttl), step).await {
                Ok(()) => {
                    alive = begun;
                    failures = 0;
                    self.tell(RegistrationState::Active, None);
                }
                Err(RegistrarError::Unknown) => {
                    let why = RegistrarError::Unknown.to_string();
                    self.tell(RegistrationState::Lost, Some(why));
                    return;
                }
                Err(RegistrarError::Failed(why)) => {
                    failures += 1;
                    let lost = alive.elapsed() >= ttl;
                    let state = if lost {
                        RegistrationState::Lost
                    } else {
                        RegistrationState::Active
                    };
                    self.tell(state, Some(why));
                    if lost {
                        return;
                    }
                }
            }
        }
    }

    fn is_stopped(&self) -> bool {
        *self.stop.borrow()
    }

    /// Waits, unless it is told to stop.
    async fn rest(&mut self, wait: Duration) {
        let stopped = self.stop.wait_for(|stop| *stop);
        let nobody_can_tell = matches!(timeout(wait, stopped).await, Ok(Err(_)));
        if nobody_can_tell {
            // The program goes on without asking.
            sleep(wait).await;
        }
    }

    fn pause(&self, failures: u32) -> Duration {
        let longest = PAUSE_MAX.min(PAUSE * (1 << failures.min(10)));
        longest.mul_f64(0.5 + 0.5 * self.rng.unit())
    }

    fn tell(&self, state: RegistrationState, error: Option<String>) {
        let before = self.told.borrow().clone();
        let (service, backend) = (&*self.instance.service, &*self.registrar.name);
        if before.state != state {
            let is_registered = state == RegistrationState::Active;
            self.registered.record(f64::from(u8::from(is_registered)));
            match state {
                RegistrationState::Lost => {
                    let error = error.as_deref().unwrap_or_default();
                    tracing::warn!(service, backend, error, "registration lost");
                }
                RegistrationState::Active => tracing::info!(service, backend, "registered"),
                RegistrationState::Gone => tracing::info!(service, backend, "deregistered"),
                _ => {}
            }
        } else if let (None, Some(error)) = (&before.error, &error) {
            tracing::warn!(service, backend, error, "registration fails");
        }
        self.told.send_replace(Step { state, error });
    }
}

async fn within(
    limit: Duration,
    step: super::registrar::Registering,
) -> Result<(), RegistrarError> {
    timeout(limit, step).await.unwrap_or_else(|_| {
        let text = format!("no answer within {} ms", limit.as_millis());
        Err(RegistrarError::Failed(text))
    })
}

#[cfg(test)]
mod tests;
