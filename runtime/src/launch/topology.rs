//! What an app needs on its brokers, as data: looked at, compared, applied and exported without
//! starting the service.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::error::{CommunicationError, CommunicationErrorKind};
use crate::handling::BoxFuture;
use crate::messaging::{BrokerError, Connected, Export, Inspection, MessageBroker, Topology};
use crate::plan::Plan;

/// How long a connection may take to close.
const CLOSE_MAX: Duration = Duration::from_secs(5);

/// What the subscriptions of an app need on each broker; see
/// [`runtime::topology`](crate::runtime::topology).
///
/// `Display` prints it, one part on a line.
pub struct AppTopology(Vec<BrokerTopology>);

/// What the subscriptions of an app need on one broker.
#[non_exhaustive]
pub struct BrokerTopology {
    /// The broker, by its name in the configuration.
    pub broker: Arc<str>,
    /// Its kind.
    pub kind: &'static str,
    /// What has to exist.
    pub topology: Topology,
    adapter: Arc<dyn MessageBroker>,
}

impl AppTopology {
    pub(super) fn of(plan: &Plan) -> Self {
        let of_broker = |planned: &crate::plan::PlannedBroker| {
            let adapter = Arc::clone(&planned.broker);
            let subscriptions = plan.subscriptions.iter();
            let own: Vec<_> = subscriptions
                .filter(|subscription| subscription.broker == *adapter.name())
                .map(|subscription| Arc::clone(&subscription.subscription))
                .collect();
            BrokerTopology {
                broker: Arc::clone(adapter.name()),
                kind: adapter.kind(),
                topology: adapter.topology(&own),
                adapter,
            }
        };
        Self(plan.brokers.iter().map(of_broker).collect())
    }

    /// Each broker's part.
    pub fn brokers(&self) -> impl Iterator<Item = &BrokerTopology> {
        self.0.iter()
    }
}

impl BrokerTopology {
    /// In the form that the broker's own tools take; `None` where there is none.
    #[must_use]
    pub fn export(&self) -> Option<Export> {
        self.adapter.export(&self.topology)
    }

    /// Compares it with what is on the broker, and changes nothing. Takes at most `limit`. A broker of
    /// this app can be asked once: afterwards its connection is closed for good.
    ///
    /// # Errors
    /// If the broker cannot be reached in time, or refuses.
    pub async fn diff(&self, limit: Duration) -> Result<Inspection, CommunicationError> {
        self.connected(limit, || self.adapter.inspect(&self.topology))
            .await
    }

    /// Makes what is missing, as the subscriptions' `topology` says. Takes at most `limit`; as for
    /// [`diff`](Self::diff), once.
    ///
    /// # Errors
    /// If the broker cannot be reached in time, or what is there differs.
    pub async fn apply(&self, limit: Duration) -> Result<(), CommunicationError> {
        self.connected(limit, || self.adapter.apply(&self.topology))
            .await
    }

    async fn connected<'a, T>(
        &'a self,
        limit: Duration,
        work: impl FnOnce() -> BoxFuture<'a, Result<T, BrokerError>>,
    ) -> Result<T, CommunicationError> {
        let done = timeout(limit, async {
            match self.adapter.connect().await? {
                Connected::Yes => Ok(work().await?),
                Connected::Retrying => {
                    let health = self.adapter.health_check();
                    let why = health.last_error.unwrap_or_default();
                    let text = format!("broker `{}` cannot be reached: {why}", self.broker);
                    let kind = CommunicationErrorKind::MessageBroker;
                    Err(CommunicationError::new(kind, text))
                }
            }
        });
        let done = done.await.unwrap_or_else(|_| {
            let text = format!("broker `{}` did not answer within {limit:?}", self.broker);
            Err(CommunicationError::new(
                CommunicationErrorKind::Timeout,
                text,
            ))
        });
        self.adapter.disconnect(Instant::now() + CLOSE_MAX).await;
        done
    }
}

impl fmt::Display for AppTopology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for broker in &self.0 {
            writeln!(f, "broker `{}` ({})", broker.broker, broker.kind)?;
            for part in &broker.topology.parts {
                write!(f, "  {} {}", part.kind, part.name)?;
                for (name, value) in &part.arguments {
                    write!(f, " {name}={value}")?;
                }
                writeln!(f)?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for AppTopology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AppTopology").field(&self.0).finish()
    }
}

impl fmt::Debug for BrokerTopology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BrokerTopology")
            .field("broker", &self.broker)
            .field("kind", &self.kind)
            .field("topology", &self.topology)
            .finish_non_exhaustive()
    }
}
