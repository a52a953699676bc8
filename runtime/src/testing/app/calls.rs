//! What a test app has to do with the services that it calls.

use std::time::Duration;

use tokio::time::Instant;

use super::super::Upstream;
use super::TestApp;

impl TestApp {
    /// The client of this type; see [`CommunicationManager::client`](crate::CommunicationManager::client).
    ///
    /// # Panics
    /// If its service is not configured, with what to write.
    #[cfg_attr(docsrs, doc(cfg(feature = "http")))]
    #[must_use]
    pub fn client<C: crate::http::ServiceClient>(&self) -> C {
        match self.process().manager.client() {
            Ok(client) => client,
            Err(error) => panic!("{error}"),
        }
    }

    /// The upstream that stands in for this service.
    ///
    /// # Panics
    /// If [none does](super::TestAppBuilder::upstream).
    #[cfg_attr(docsrs, doc(cfg(feature = "http")))]
    #[must_use]
    pub fn upstream(&self, service: &str) -> Upstream {
        let found = self.upstreams.iter().find(|one| one.service() == service);
        match found {
            Some(upstream) => upstream.clone(),
            None => panic!("no upstream stands in for the service `{service}`"),
        }
    }

    /// Waits until calls of this service go to so many endpoints; see
    /// [`TestAppBuilder::discovery`](super::TestAppBuilder::discovery).
    ///
    /// # Panics
    /// If they do not within ten seconds, with what is known; or if there is no such service.
    #[cfg_attr(docsrs, doc(cfg(feature = "http")))]
    pub async fn until_endpoints(&self, service: &str, count: usize) {
        let limit = Instant::now() + Duration::from_secs(10);
        loop {
            let health = self.process().manager.health();
            let found = health.services.iter().find(|one| *one.service == *service);
            let Some(found) = found else {
                panic!("no service `{service}` is configured");
            };
            if found.endpoints == count {
                return;
            }
            assert!(
                Instant::now() < limit,
                "{}",
                self.failure(&format!("not {count} endpoints of `{service}`: {found:?}"))
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The calls of upstreams that are due at or before `horizon` and have no end, a line each.
    pub(super) fn due_calls(&self, horizon: Instant) -> String {
        let due = self.upstreams.iter().flat_map(|one| one.due(horizon));
        let mut lines: String = due.map(|call| format!("\n  due call: {call}")).collect();
        if !lines.is_empty() {
            lines.push_str("\n  a call that the test itself has begun has to be spawned");
        }
        lines
    }

    /// Whether no call of an upstream was due; one that was has an end now.
    pub(super) async fn called(&self, horizon: Instant) -> bool {
        let calm = self.upstreams.iter().all(|one| one.is_quiet(horizon));
        for upstream in &self.upstreams {
            upstream.quiet(horizon).await;
        }
        calm
    }
}
