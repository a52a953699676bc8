//! Where the service is, and how a stack follows it.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};

use crate::discovery::{DiscoveryStatus, Endpoint, EndpointSet, Whereabouts};

use super::super::checks;
use super::super::error::{CallErrorKind, CallFailure, CallName};
use super::Stack;

impl Stack {
    /// Calls go to these endpoints from now on. What is known of those that were there before stays,
    /// and calls that run at one that is not there any more go on.
    pub(super) fn apply(&self, endpoints: &EndpointSet) {
        let pool = self.pool.load_full();
        let pool = pool.with(endpoints);
        self.endpoints.record(pool.targets().count() as f64);
        self.pool.store(Arc::new(pool));
        self.resolved.send_replace(true);
    }

    /// Begins to follow the service, to check its endpoints and to renew its connections, in tasks that
    /// go on until they are aborted.
    pub(crate) fn follow(self: &Arc<Self>) -> Vec<AbortHandle> {
        let stack = Arc::clone(self);
        let keeping = tokio::spawn(async move { stack.transport.keep(&stack.service).await });
        let mut tasks = vec![keeping.abort_handle()];
        if let Some(checks) = &self.settings.checks {
            let checking = checks::run(Arc::clone(self), checks.clone());
            tasks.push(tokio::spawn(checking).abort_handle());
        }
        let Whereabouts::Watched(watch) = &self.settings.whereabouts else {
            return tasks;
        };
        let asking = tokio::spawn(Arc::clone(watch).run());
        let (stack, mut snapshots) = (Arc::clone(self), watch.snapshots());
        let applying = tokio::spawn(async move {
            loop {
                let snapshot = snapshots.borrow_and_update().clone();
                if snapshot.resolved {
                    stack.apply(&snapshot.endpoints);
                }
                if snapshots.changed().await.is_err() {
                    return;
                }
            }
        });
        tasks.extend([asking.abort_handle(), applying.abort_handle()]);
        tasks
    }

    /// What is known of where the service is.
    pub(crate) fn discovery(&self) -> DiscoveryStatus {
        let pool = self.pool.load();
        let told = match &self.settings.whereabouts {
            Whereabouts::Watched(watch) => watch.status(),
            Whereabouts::Fixed(endpoints) => DiscoveryStatus::fixed(&self.service, endpoints),
        };
        DiscoveryStatus {
            // What calls go to, which is a moment behind what was told.
            endpoints: pool.targets().count(),
            resolved: *self.resolved.borrow(),
            unhealthy: checks::down(&pool),
            ..told
        }
    }

    /// Where the service is, in words.
    pub(crate) fn whereabouts(&self) -> String {
        match &self.settings.whereabouts {
            Whereabouts::Watched(watch) => watch.describe(),
            Whereabouts::Fixed(_) => {
                let pool = self.pool.load();
                pool.urls().collect::<Vec<_>>().join(", ")
            }
        }
    }

    /// Waits for the first answer of discovery. Whether it came now, so that it is worth looking again.
    pub(super) async fn first_answer(&self, deadline: Instant) -> bool {
        let Whereabouts::Watched(watch) = &self.settings.whereabouts else {
            return false;
        };
        let mut resolved = self.resolved.subscribe();
        if *resolved.borrow_and_update() {
            return false;
        }
        let until = deadline.min(Instant::now() + watch.first_answer());
        let answer = resolved.wait_for(|resolved| *resolved);
        matches!(timeout_at(until, answer).await, Ok(Ok(_)))
    }

    /// Connects to the endpoint to which a call of now would go, and hangs up.
    pub(in super::super) async fn connect(&self, limit: Duration) -> Result<(), Box<CallFailure>> {
        let call = Arc::new(CallName {
            service: Arc::clone(&self.service),
            method: "health check".into(),
        });
        let Some(url) = self.endpoint() else {
            let kind = CallErrorKind::ServiceDiscovery;
            return Err(Box::new(CallFailure::new(kind, &call, self.why_nowhere())));
        };
        let connected = match Endpoint::parse(&url) {
            Ok(endpoint) => self.transport.reach(&endpoint, limit).await,
            Err(why) => Err(why),
        };
        connected.map(|_| ()).map_err(|why| {
            let text = format!("no connection: {why}");
            let mut failure = CallFailure::new(CallErrorKind::Connect, &call, text);
            failure.endpoint = Some(url);
            failure.attempts = 1;
            Box::new(failure)
        })
    }

    pub(super) fn why_nowhere(&self) -> String {
        match &self.settings.whereabouts {
            Whereabouts::Watched(watch) => {
                format!("no endpoint of the service is known: {}", watch.why())
            }
            Whereabouts::Fixed(_) => "no endpoint of the service is known".to_owned(),
        }
    }
}
