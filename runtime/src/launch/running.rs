//! A running app.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::error::CommunicationError;
use crate::handling::Publisher;
use crate::manager::{CommunicationManager, Health};
use crate::plan::PlanReport;

use super::Hook;

/// How long one look at readiness waits before it asks again whether the app still runs.
const READY_ROUND: Duration = Duration::from_secs(60);

/// A running app. Cheap to clone; it goes on until [`stop`](Self::stop), also when every handle is
/// dropped.
#[derive(Clone)]
pub struct Running(Arc<Inner>);

struct Inner {
    manager: Arc<CommunicationManager>,
    on_drain: Mutex<Vec<Hook>>,
}

impl Running {
    pub(super) fn new(manager: Arc<CommunicationManager>, on_drain: Vec<Hook>) -> Self {
        Self(Arc::new(Inner {
            manager,
            on_drain: Mutex::new(on_drain),
        }))
    }

    /// Runs the hooks once the app is ready, unless it goes down before.
    pub(super) fn when_ready(&self, hooks: Vec<Hook>) {
        if hooks.is_empty() {
            return;
        }
        let running = self.clone();
        tokio::spawn(async move {
            loop {
                match running.manager().ready(READY_ROUND).await {
                    Ok(()) => break,
                    Err(error) if error.is_timeout() => {}
                    Err(_) => return,
                }
            }
            for hook in hooks {
                hook(running.clone()).await;
            }
        });
    }

    /// Lets others find the app once it is ready, where that is configured.
    #[cfg(feature = "http")]
    pub(super) fn register_when_ready(&self) {
        if self.report().registration.is_empty() {
            return;
        }
        let running = self.clone();
        tokio::spawn(async move {
            loop {
                match running.manager().ready(READY_ROUND).await {
                    Ok(()) => break,
                    Err(error) if error.is_timeout() => {}
                    Err(_) => return,
                }
            }
            running.manager().discovery().register_itself();
        });
    }

    /// Publishes for the service.
    #[must_use]
    pub fn publisher(&self) -> Publisher {
        self.0.manager.publisher()
    }

    /// The client of this type; see [`CommunicationManager::client`].
    ///
    /// # Errors
    /// If its service is not configured, with what to write.
    #[cfg(feature = "http")]
    #[cfg_attr(docsrs, doc(cfg(feature = "http")))]
    pub fn client<C: crate::http::ServiceClient>(&self) -> Result<C, CommunicationError> {
        self.0.manager.client()
    }

    /// What connects and runs everything.
    #[must_use]
    pub fn manager(&self) -> &CommunicationManager {
        &self.0.manager
    }

    /// What was decided, in words.
    #[must_use]
    pub fn report(&self) -> &PlanReport {
        self.0.manager.report()
    }

    /// How everything is. Answers at once.
    #[must_use]
    pub fn health(&self) -> Health {
        self.0.manager.health()
    }

    /// A layer for an HTTP server that answers `/health/live` and `/health/ready` by the health of this
    /// app.
    #[cfg(feature = "tower")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tower")))]
    #[must_use]
    pub fn health_layer(&self) -> crate::http::server::HealthLayer {
        let running = self.clone();
        crate::http::server::HealthLayer::new(move || {
            let health = running.health();
            let obstacles = health.obstacles();
            crate::http::server::HealthReport::new(health.live, health.ready, obstacles)
        })
    }

    /// Waits until every broker is connected and every subscription consumes.
    ///
    /// # Errors
    /// After `limit`, with what is in the way; or if the app goes down.
    pub async fn ready(&self, limit: Duration) -> Result<(), CommunicationError> {
        self.0.manager.ready(limit).await
    }

    /// Stops fetching for a subscriber; see [`CommunicationManager::pause`].
    ///
    /// # Errors
    /// If there is no such subscriber.
    pub async fn pause(&self, subscriber: &str) -> Result<(), CommunicationError> {
        self.0.manager.pause(subscriber).await
    }

    /// Fetches again for a subscriber.
    ///
    /// # Errors
    /// If there is no such subscriber.
    pub async fn resume(&self, subscriber: &str) -> Result<(), CommunicationError> {
        self.0.manager.resume(subscriber).await
    }

    /// Goes down until `deadline`: not ready, not registered any more, `on_drain` hooks, no more fetching, what is in flight
    /// finished or given back, publishes confirmed, connections closed. It goes on when the returned
    /// future is dropped; a second call waits for the first.
    pub async fn stop(&self, deadline: Instant) {
        let running = self.clone();
        let drain = tokio::spawn(async move { running.drain(deadline).await });
        // A panic in a hook must not leave the app half down.
        if drain.await.is_err() {
            self.0.manager.shutdown(deadline).await;
        }
    }

    /// [`stop`](Self::stop), with a limit from now.
    pub async fn stop_within(&self, limit: Duration) {
        self.stop(Instant::now() + limit).await;
    }

    /// Waits until the app is down.
    pub async fn wait(&self) {
        self.0.manager.stopped().await;
    }

    async fn drain(&self, deadline: Instant) {
        self.0.manager.begin_draining();
        // Before the hooks, which may close the server that others call.
        self.0.manager.leave(deadline).await;
        let hooks = std::mem::take(
            &mut *self
                .0
                .on_drain
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
        for hook in hooks {
            if timeout_at(deadline, hook(self.clone())).await.is_err() {
                tracing::warn!("an `on_drain` hook took all the time there was");
            }
        }
        let drained = self.0.manager.shutdown(deadline).await;
        if drained.returned > 0 {
            tracing::info!(
                returned = drained.returned,
                "messages that were not handled went back to their broker"
            );
        }
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Running").field(&self.0.manager).finish()
    }
}
