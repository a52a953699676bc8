//! Spans, off and on within one process.

use std::io;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, reload};

/// The switch.
pub(crate) struct Spans(reload::Handle<Targets, Registry>);

impl Spans {
    /// Installs a subscriber that formats every finished span and writes it nowhere; off at first.
    pub(crate) fn install() -> Self {
        let (filter, handle) = reload::Layer::new(Targets::new());
        let lines = tracing_subscriber::fmt::layer()
            .with_span_events(FmtSpan::CLOSE)
            .with_writer(io::sink);
        tracing_subscriber::registry()
            .with(filter)
            .with(lines)
            .init();
        Self(handle)
    }

    /// Switches the SDK's spans; the client crate's own stay off.
    pub(crate) fn switch(&self, on: bool) {
        let level = if on {
            LevelFilter::INFO
        } else {
            LevelFilter::OFF
        };
        let targets = Targets::new().with_target("interline", level);
        self.0
            .reload(targets)
            .expect("the subscriber lives as long as the process");
    }
}
