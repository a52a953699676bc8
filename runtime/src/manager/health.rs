//! How an app is.

use std::sync::Arc;

use crate::messaging::{BrokerHealth, ConnectionState, ConsumerState, SubscriptionHealth};

/// How an app is: alive, ready, and each connection and subscription.
///
/// `live` never depends on a broker: an outage is no reason to restart. `ready` does.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Health {
    /// The service.
    pub service: Arc<str>,
    /// Whether the process does its work or can still get to it; false only after the end.
    pub live: bool,
    /// Whether it is started, not going down, connected to every broker and consuming every
    /// subscription.
    pub ready: bool,
    /// Whether it is going down.
    pub draining: bool,
    /// How many subscriptions are declared.
    pub declared: usize,
    /// The connections.
    pub brokers: Vec<BrokerStatus>,
    /// The subscriptions that were started.
    pub subscriptions: Vec<SubscriptionHealth>,
    /// What is known of where the services are that the app calls. Not knowing it keeps the app from
    /// no readiness: its own callers are not helped if it goes, too.
    #[cfg(feature = "http")]
    #[cfg_attr(docsrs, doc(cfg(feature = "http")))]
    pub services: Vec<crate::discovery::DiscoveryStatus>,
    /// Where this program is registered, and what else it has registered.
    #[cfg(feature = "http")]
    #[cfg_attr(docsrs, doc(cfg(feature = "http")))]
    pub registrations: Vec<crate::discovery::RegistrationStatus>,
}

/// The connection to one broker.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BrokerStatus {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// Its kind.
    pub kind: &'static str,
    /// How it is.
    pub health: BrokerHealth,
    /// Why the app is not ready although it is connected: `require_durable` is set, and this broker,
    /// which came up after the start, can lose acknowledged messages or has not told yet.
    pub refused: Option<String>,
}

impl Health {
    /// How many subscriptions consume.
    #[must_use]
    pub fn running(&self) -> usize {
        let running =
            |subscription: &&SubscriptionHealth| subscription.state == ConsumerState::Running;
        self.subscriptions.iter().filter(running).count()
    }

    /// What keeps it from being ready, in words; empty when nothing does. Pausing a subscription
    /// by hand does not count.
    #[must_use]
    pub fn obstacles(&self) -> Vec<String> {
        let mut obstacles = Vec::new();
        if self.draining {
            obstacles.push("it is going down".to_owned());
        }
        for broker in &self.brokers {
            let state = broker.health.state;
            if !matches!(state, ConnectionState::Ready | ConnectionState::Blocked) {
                let mut text = format!("broker `{}` is {}", broker.name, in_words(state));
                if let Some(error) = &broker.health.last_error {
                    text.push_str(&format!(": {error}"));
                }
                obstacles.push(text);
            }
            obstacles.extend(broker.refused.clone());
        }
        for subscription in &self.subscriptions {
            let why = match &subscription.state {
                ConsumerState::Running | ConsumerState::Paused => continue,
                ConsumerState::Failed(why) => format!("cannot consume: {why}"),
                ConsumerState::Starting => "does not consume yet".to_owned(),
                ConsumerState::Stopped => "was stopped".to_owned(),
            };
            obstacles.push(format!("subscription `{}` {why}", subscription.label));
        }
        let missing = self.declared.saturating_sub(self.subscriptions.len());
        if missing > 0 {
            obstacles.push(format!(
                "{missing} of {} subscriptions are not started",
                self.declared
            ));
        }
        obstacles
    }
}

fn in_words(state: ConnectionState) -> &'static str {
    match state {
        ConnectionState::Blocked => "blocked",
        ConnectionState::Closed => "closed",
        ConnectionState::Connecting => "connecting",
        ConnectionState::Disconnected => "not connected",
        ConnectionState::Failed => "refused",
        ConnectionState::Ready => "connected",
    }
}
