//! One run of the app under test, as its operating system would see it: it starts, and it dies.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use tokio::time::Instant;

use crate::error::CommunicationError;
use crate::handling::Failed;
use crate::manager::CommunicationManager;
use crate::message::Incoming;
use crate::messaging::memory::{MemoryBroker, MemoryStore};
use crate::messaging::{BrokerContext, CrashPoint, CrashPoints};
use crate::plan::Wiring;

/// How long becoming ready may take; a fault can keep connections away for a while.
const READY_MAX: Duration = Duration::from_secs(300);
/// How long going down in order may take.
const STOP_MAX: Duration = Duration::from_secs(60);

/// A running app and what can end it.
pub(super) struct Process {
    pub(super) manager: Arc<CommunicationManager>,
    life: Arc<Life>,
}

/// What a crash needs to know.
struct Life {
    instance: Arc<str>,
    stores: Vec<(Arc<str>, MemoryStore)>,
    brokers: Vec<Arc<MemoryBroker>>,
    manager: OnceLock<Weak<CommunicationManager>>,
    ended: AtomicBool,
}

impl Process {
    /// Starts the app on these stores and waits until it is ready.
    pub(super) async fn start(
        mut wiring: Wiring,
        stores: &[(Arc<str>, MemoryStore)],
        instance: Arc<str>,
    ) -> Result<Self, CommunicationError> {
        let prefix = naming_prefix(&wiring);
        let connect = |(name, store): &(Arc<str>, MemoryStore)| {
            let mut context = BrokerContext::new(Arc::clone(name), "test", Arc::clone(&instance));
            context.prefix.clone_from(&prefix);
            context.rng = wiring.rng.clone();
            context.clock = Arc::clone(&wiring.clock);
            context.metrics.clone_from(&wiring.metrics);
            Arc::new(MemoryBroker::new(store, &context))
        };
        let brokers: Vec<_> = stores.iter().map(connect).collect();
        let life = Arc::new(Life {
            instance: Arc::clone(&instance),
            stores: stores.to_vec(),
            brokers: brokers.clone(),
            manager: OnceLock::new(),
            ended: AtomicBool::new(false),
        });
        let names = stores.iter().map(|(name, _)| Arc::clone(name));
        wiring.brokers = names
            .zip(brokers.into_iter().map(|broker| broker as _))
            .collect();
        wiring.instance = Some(instance);
        wiring.crash_points = Some(Arc::clone(&life) as _);
        let manager = Arc::new(CommunicationManager::new(wiring)?);
        // Nobody else has set it: it was made above.
        let _ = life.manager.set(Arc::downgrade(&manager));
        manager.initialize().await?;
        manager.ready(READY_MAX).await?;
        Ok(Self { manager, life })
    }

    /// Whether it has neither crashed nor been stopped.
    pub(super) fn is_running(&self) -> bool {
        !self.life.ended.load(Ordering::Acquire)
    }

    /// Dies as by SIGKILL.
    pub(super) async fn kill(&self) {
        self.life.cut();
        self.manager.abandon().await;
    }

    /// Goes down in order.
    pub(super) async fn stop(&self) {
        self.manager.shutdown(Instant::now() + STOP_MAX).await;
        self.life.ended.store(true, Ordering::Release);
    }
}

impl Life {
    /// Ends every connection: from here on nothing that the process does has an effect.
    fn cut(&self) {
        self.ended.store(true, Ordering::Release);
        for (_, store) in &self.stores {
            store.kill(&self.instance);
        }
    }
}

impl CrashPoints for Life {
    fn reached(&self, point: CrashPoint) -> bool {
        if self.ended.load(Ordering::Acquire) {
            return true;
        }
        if !self.brokers.iter().any(|broker| broker.reached(point)) {
            return false;
        }
        self.cut();
        if let Some(manager) = self.manager.get().and_then(Weak::upgrade) {
            // The task that asks is one of those that end.
            tokio::spawn(async move { manager.abandon().await });
        }
        true
    }

    fn attempt_failed(&self, incoming: &Incoming, failed: &Failed) {
        let broker = &incoming.origin.broker;
        let (Some((_, store)), false) = (
            self.stores.iter().find(|(name, _)| name == broker),
            self.ended.load(Ordering::Acquire),
        ) else {
            return;
        };
        let Failed { reason, text, .. } = failed;
        let text = format!("attempt {} failed ({reason}): {text}", incoming.attempt);
        store.note(&incoming.id, text);
    }
}

/// What the names on the brokers begin with. What is wrong about it is in the plan's report.
pub(super) fn naming_prefix(wiring: &Wiring) -> Option<Arc<str>> {
    let naming = wiring.config.section("naming");
    let prefix = naming.string("prefix", &mut crate::config::Faults::new());
    prefix.filter(|prefix| !prefix.is_empty()).map(Into::into)
}
