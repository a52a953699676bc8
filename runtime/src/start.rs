//! `start`: an app from its banner to its end, signals included.

use std::future::pending;
use std::pin::pin;
use std::sync::Arc;

use tokio::time::Instant;

use crate::error::{CommunicationError, CommunicationErrorKind, Report, Result};
use crate::launch::{App, AppTopology, Running};
use crate::plan::{KindReport, PlanReport};

/// Makes the plan of an app and stops: for a unit test of the wiring, and for `--check` in a
/// pipeline. It needs no server.
///
/// # Errors
/// A report of every mistake.
pub fn check(app: &App) -> Result<PlanReport, Report> {
    app.check()
}

/// What changes for an app's own handlers and messages if every one of its brokers is of `kind`: `kafka`,
/// `memory`, `rabbitmq`, `redis`, `redis-pubsub`, or one of [`App::broker_kind`]. What would be refused,
/// with what to write instead; what would be ignored; and what would be done in another way. It needs
/// no server, and nothing is started. Settings of the configuration that only the present kind has
/// are left aside.
///
/// ```
/// # #[cfg(all(feature = "kafka", feature = "memory", feature = "json"))]
/// # fn main() -> interline::Result<()> {
/// use interline::prelude::*;
/// # let config = Config::new().with("service.name", "billing");
///
/// let app = App::new(config).publish_only();
/// let report = runtime::check_as(&app, "kafka")?;
/// print!("{report}");
/// assert!(report.can_start());
/// # Ok(())
/// # }
/// # #[cfg(not(all(feature = "kafka", feature = "memory", feature = "json")))]
/// # fn main() {}
/// ```
///
/// # Errors
/// A report of every mistake that the app has as it is configured, or of what is wrong with `kind`:
/// there is none of this name, or its feature is off.
pub fn check_as(app: &App, kind: &str) -> Result<KindReport, Report> {
    app.check_as(kind)
}

/// What an app needs on its brokers, as data: print it (plan), compare it with what is there (diff), make
/// what is missing (apply), or write it for the broker's own tools (export). The service is not
/// started, and nothing is connected to before `diff` or `apply`.
///
/// ```
/// # #[cfg(all(feature = "memory", feature = "json"))]
/// # fn main() -> interline::Result<()> {
/// use interline::prelude::*;
/// # let config = Config::new().with("service.name", "billing");
///
/// let app = App::new(config).publish_only();
/// let topology = runtime::topology(&app)?;
/// print!("{topology}");
/// for broker in topology.brokers() {
///     if let Some(export) = broker.export() {
///         std::fs::write(format!("{}.{}", broker.broker, export.extension), export.text)?;
///     }
/// }
/// # Ok(())
/// # }
/// # #[cfg(not(all(feature = "memory", feature = "json")))]
/// # fn main() {}
/// ```
///
/// # Errors
/// A report of every mistake.
pub fn topology(app: &App) -> Result<AppTopology, Report> {
    app.topology()
}

/// Starts an app and returns while it runs, for programs with their own signals; see
/// [`App::launch`].
///
/// # Errors
/// Every mistake in the wiring at once; or what a broker refused for good.
pub async fn launch(app: impl Into<App>) -> std::result::Result<Running, CommunicationError> {
    app.into().launch().await
}

/// Runs an app until SIGTERM or SIGINT (Windows: Ctrl-C), then takes it down in order: stops
/// fetching, finishes or gives back what is in flight, waits for publishes, closes. A second signal
/// ends the process at once with exit code 128 + its number.
///
/// Prints what was decided first: through `tracing`, or to standard error where no subscriber for it
/// is set.
///
/// ```no_run
/// use interline::prelude::*;
///
/// #[tokio::main]
/// async fn main() -> interline::Result<()> {
///     runtime::start(Config::load()?).await
/// }
/// ```
///
/// # Errors
/// Every mistake in the wiring at once; or what a broker refused for good.
pub async fn start(app: impl Into<App>) -> Result<()> {
    let app = app.into();
    let signals = if app.handles_signals() {
        Some(Signals::listen().map_err(no_signals)?)
    } else {
        None
    };
    let planned = app.planned()?;
    announce(planned.manager.report());
    let manager = Arc::clone(&planned.manager);
    let launched = planned.launch();
    let Some(mut signals) = signals else {
        launched.await?.wait().await;
        return Ok(());
    };
    let mut launched = pin!(launched);
    let running = tokio::select! {
        biased;
        launched = &mut launched => launched?,
        signal = signals.next() => {
            say(&format!("{}: going down", signal.name));
            // Some of it may run already.
            let down = manager.shutdown(Instant::now() + manager.drain_timeout());
            let starting = async {
                // What it starts after that, it stops.
                let _ = launched.await;
                pending::<()>().await;
            };
            tokio::select! {
                biased;
                _ = down => return Ok(()),
                () = starting => {}
                signal = signals.next() => end_at_once(signal),
            }
            return Ok(());
        }
    };
    tokio::select! {
        biased;
        () = running.wait() => return Ok(()),
        signal = signals.next() => {
            say(&format!("{}: going down", signal.name));
        }
    }
    let limit = running.manager().drain_timeout();
    tokio::select! {
        biased;
        () = running.stop_within(limit) => Ok(()),
        signal = signals.next() => end_at_once(signal),
    }
}

fn end_at_once(second: Signal) -> ! {
    say(&format!("second {}: ending at once", second.name));
    std::process::exit(128 + second.number);
}

fn no_signals(error: std::io::Error) -> CommunicationError {
    CommunicationError::from_source(CommunicationErrorKind::Configuration, error)
}

/// Prints what was decided.
fn announce(report: &PlanReport) {
    say(&report.banner());
    for warning in &report.warnings {
        let help = warning.help.as_deref();
        let help = help.map_or(String::new(), |help| format!(" ({help})"));
        let (place, subject) = (&warning.place, &warning.subject);
        let text = format!("{place}  {subject}  {}{help}", warning.message);
        if tracing::dispatcher::has_been_set() {
            tracing::warn!("{text}");
        } else {
            eprintln!("warning: {text}");
        }
    }
}

/// Through `tracing`, or to standard error where nobody listens to that.
fn say(text: &str) {
    if tracing::dispatcher::has_been_set() {
        tracing::info!("{text}");
    } else {
        eprintln!("{text}");
    }
}

/// A signal that asks the process to end.
#[derive(Clone, Copy)]
struct Signal {
    name: &'static str,
    number: i32,
}

const SIGINT: Signal = Signal {
    name: "SIGINT",
    number: 2,
};

#[cfg(unix)]
const SIGTERM: Signal = Signal {
    name: "SIGTERM",
    number: 15,
};

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn listen() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            Some(()) = self.interrupt.recv() => SIGINT,
            Some(()) = self.terminate.recv() => SIGTERM,
            else => pending().await,
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> Signal {
        if tokio::signal::ctrl_c().await.is_err() {
            pending().await
        }
        SIGINT
    }
}

#[cfg(test)]
#[cfg(all(unix, feature = "memory", feature = "json"))]
mod tests;
