//! Asks each broker at the start what can lose the messages that it acknowledged.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::messaging::{
    BrokerError, BrokerErrorKind, ConnectionState, DurabilityConcern, DurabilityWeight,
    MessageBroker, Subscription,
};

use super::Phase;

/// How long a broker may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// How often a broker that was not connected is looked at, and how soon it is asked again.
const LOOK: Duration = Duration::from_millis(500);

/// Why brokers that were not connected at the start keep the app from being ready, by name.
#[derive(Clone, Default)]
pub(super) struct Refusals(Arc<Mutex<BTreeMap<Arc<str>, String>>>);

impl Refusals {
    pub(super) fn of(&self, broker: &str) -> Option<String> {
        let refusals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        refusals.get(broker).cloned()
    }

    fn set(&self, broker: &Arc<str>, why: String) {
        let mut refusals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        refusals.insert(Arc::clone(broker), why);
    }

    fn clear(&self, broker: &str) {
        let mut refusals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        refusals.remove(broker);
    }
}

/// The question to one broker.
pub(super) struct Durability {
    pub(super) broker: Arc<dyn MessageBroker>,
    pub(super) subscriptions: Vec<Arc<Subscription>>,
    pub(super) required: bool,
}

/// What became of the question.
enum Answer {
    Told,
    Refused(BrokerError),
    /// It could not be asked yet.
    Later,
}

impl Durability {
    /// Asks now, or later in the background where the broker is not connected yet.
    ///
    /// # Errors
    /// If durability is required and not given, or not known.
    pub(super) async fn check(
        self,
        phase: watch::Receiver<Phase>,
        refusals: Refusals,
    ) -> Result<(), BrokerError> {
        match self.ask().await {
            Answer::Told => Ok(()),
            Answer::Refused(error) => Err(error),
            Answer::Later => {
                if self.required {
                    let name = self.broker.name();
                    let why = "it is not known yet whether acknowledged messages can be lost";
                    refusals.set(name, format!("broker `{name}`: {why}"));
                }
                tokio::spawn(self.ask_later(phase, refusals));
                Ok(())
            }
        }
    }

    async fn ask(&self) -> Answer {
        let name = self.broker.name();
        let asked = timeout(ANSWER_MAX, self.broker.durability(&self.subscriptions));
        let concerns = match asked.await {
            Ok(Ok(concerns)) => concerns,
            Ok(Err(error)) if !error.is_retryable() => {
                if self.required {
                    return Answer::Refused(self.unknown(&error));
                }
                tracing::warn!(broker = %name, "cannot tell whether acknowledged messages can be lost: {error}");
                return Answer::Told;
            }
            Ok(Err(_)) | Err(_) => return Answer::Later,
        };
        let (losses, notes): (Vec<_>, Vec<_>) = concerns
            .into_iter()
            .partition(|concern| concern.weight == DurabilityWeight::Loss);
        for note in notes {
            tracing::info!(broker = %name, "{note}");
        }
        if losses.is_empty() {
            return Answer::Told;
        }
        if self.required {
            return Answer::Refused(self.refused(&losses));
        }
        // A broker that keeps nothing by its nature says so in the banner.
        if self.broker.capabilities().durable {
            for loss in losses {
                tracing::warn!(broker = %name, "acknowledged messages can be lost: {loss}");
            }
        }
        Answer::Told
    }

    /// Asks once the broker is connected. Consumers run by then: what is refused keeps the app from
    /// being ready.
    async fn ask_later(self, mut phase: watch::Receiver<Phase>, refusals: Refusals) {
        loop {
            tokio::select! {
                // The app goes down, or is gone.
                _ = phase.wait_for(|phase| *phase >= Phase::Draining) => return,
                () = sleep(LOOK) => {}
            }
            if self.broker.health_check().state != ConnectionState::Ready {
                continue;
            }
            match self.ask().await {
                Answer::Told => {
                    refusals.clear(self.broker.name());
                    return;
                }
                Answer::Refused(error) => {
                    tracing::error!("{error}");
                    refusals.set(self.broker.name(), error.to_string());
                    return;
                }
                Answer::Later => {}
            }
        }
    }

    fn refused(&self, losses: &[DurabilityConcern]) -> BrokerError {
        let name = self.broker.name();
        let losses: Vec<String> = losses.iter().map(ToString::to_string).collect();
        let text = format!(
            "it can lose messages that it acknowledged, which `brokers.{name}.require_durable` \
             forbids: {}",
            losses.join("; and ")
        );
        BrokerError::new(BrokerErrorKind::Configuration, name, text)
    }

    fn unknown(&self, error: &BrokerError) -> BrokerError {
        let name = self.broker.name();
        let text = format!(
            "it cannot be told whether acknowledged messages can be lost, which \
             `brokers.{name}.require_durable` wants to know: {error}"
        );
        BrokerError::new(error.kind(), name, text)
    }
}
