//! The SDK's rows, the same on every broker.

use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use interline::config::Config;
use interline::launch::Running;
use interline::observability::metrics::InMemoryMetrics;
use interline::prelude::*;

use crate::order::{Measured, Moment, Order, Probe};
use crate::transport::Load;
use crate::{LIMIT, Result};

#[subscriber]
async fn handle(order: Order, probe: State<Arc<Probe>>) {
    probe.note(order.n);
}

/// The same, for a broker that delivers at most once.
#[subscriber(group = "hearers", delivery = at_most_once)]
async fn hear(order: Order, probe: State<Arc<Probe>>) {
    probe.note(order.n);
}

/// Which of the handlers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handler {
    AtLeastOnce,
    AtMostOnce,
}

impl Handler {
    fn register(self, app: App) -> App {
        match self {
            Self::AtLeastOnce => app.register::<handle>(),
            Self::AtMostOnce => app.register::<hear>(),
        }
    }
}

/// What is switched on beside the default settings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Variant {
    pub(crate) name: &'static str,
    pub(crate) metrics: bool,
    pub(crate) spans: bool,
}

pub(crate) const VARIANTS: &[Variant] = &[
    Variant {
        name: "metrics on",
        metrics: true,
        spans: false,
    },
    Variant {
        name: "metrics off",
        metrics: false,
        spans: false,
    },
    Variant {
        name: "metrics and spans on",
        metrics: true,
        spans: true,
    },
];

fn app(config: Config, metrics: bool) -> App {
    let app = App::new(config.with("service.name", "bench")).named_only();
    if metrics {
        app.metrics(Arc::new(InMemoryMetrics::default()))
    } else {
        app
    }
}

/// Makes the queue of a group and leaves it alone.
pub(crate) async fn declare(config: Config, handler: Handler) -> Result<()> {
    let app = app(config, false).state(Arc::new(Probe::expecting(0)));
    let running = handler.register(app).launch().await?;
    running.ready(LIMIT).await?;
    running.stop_within(LIMIT).await;
    Ok(())
}

/// Handles everything that comes to a group, until `probe` is full.
pub(crate) async fn consume(
    config: Config,
    variant: Variant,
    handler: Handler,
    probe: Arc<Probe>,
) -> Result<()> {
    let app = app(config, variant.metrics).state(Arc::clone(&probe));
    let running = handler.register(app).launch().await?;
    let handled = probe.full(LIMIT).await;
    running.stop_within(LIMIT).await;
    handled
}

/// A publisher that is connected.
pub(crate) struct Publishes(Running);

impl Publishes {
    pub(crate) async fn connect(config: Config, variant: Variant) -> Result<Self> {
        let running = app(config, variant.metrics).publish_only().launch().await?;
        running.ready(LIMIT).await?;
        Ok(Self(running))
    }

    /// Publishes orders, so many open at once.
    pub(crate) async fn publish(&self, load: Load) -> Result<Measured> {
        let publisher = self.0.publisher();
        let begun = Moment::now();
        let publishing = stream::iter(0..load.count)
            .map(|n| {
                let publisher = &publisher;
                async move { publisher.publish(&Order::of_size(n, load.size)).await }
            })
            .buffer_unordered(load.open);
        let confirmed = publishing
            .try_fold(0_u64, |confirmed, _| async move { Ok(confirmed + 1) })
            .await?;
        let ended = Moment::now();
        if confirmed != load.count {
            return Err(format!("{confirmed} of {} confirmed", load.count).into());
        }
        Ok(Measured::between(begun, ended, load.count))
    }

    pub(crate) async fn close(self) {
        self.0.stop_within(LIMIT).await;
    }
}
