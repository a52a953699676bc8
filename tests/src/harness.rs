//! A test program whose cases may need a real server.
//!
//! A case whose server is missing is reported as ignored, with the reason; with
//! `INTERLINE_TEST_REQUIRE_SERVERS=1`, as `tests/run` sets it, it fails. Every case has a runtime
//! of its own and a limit of real time, also when it pauses the clock of that runtime.
//!
//! ```no_run
//! use interline_tests::harness::{self, Case};
//! use interline_tests::servers::{self, Server};
//!
//! fn main() -> std::process::ExitCode {
//!     harness::run([
//!         Case::new("the_server_answers", || async {
//!             let server = servers::rabbitmq().await?;
//!             assert!(server.url().starts_with("amqp"));
//!             Ok::<(), interline::testing::ServerError>(())
//!         })
//!         .needs(Server::RabbitMq),
//!     ])
//! }
//! ```

use std::any::Any;
use std::env;
use std::fmt::Debug;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use futures_util::future::{Either, select};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use crate::servers::Server;

/// How long a case may take unless it says otherwise.
const LIMIT: Duration = Duration::from_secs(120);
/// How long a case that was told to end may still take to do so.
const GRACE: Duration = Duration::from_secs(15);

type Body = Box<dyn FnOnce(oneshot::Receiver<()>) -> Result<(), String> + Send>;

/// One test.
pub struct Case {
    name: String,
    server: Option<Server>,
    limit: Duration,
    body: Body,
}

/// What the body of a case may end with: nothing, or a result.
pub trait Ending {
    /// What went wrong, if anything did.
    fn into_result(self) -> Result<(), String>;
}

impl Ending for () {
    fn into_result(self) -> Result<(), String> {
        Ok(())
    }
}

impl<E: Debug> Ending for Result<(), E> {
    fn into_result(self) -> Result<(), String> {
        self.map_err(|error| format!("{error:?}"))
    }
}

impl Case {
    /// A case that runs on a runtime of its own, with two worker threads.
    pub fn new<F>(name: impl Into<String>, body: impl FnOnce() -> F + Send + 'static) -> Self
    where
        F: Future<Output: Ending>,
    {
        Self::on_runtime(name, body, || {
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
        })
    }

    /// A case that runs on one thread whose clock is paused: it moves on by itself when all tasks
    /// wait, so the case cannot speak to a real server.
    pub fn with_virtual_time<F>(
        name: impl Into<String>,
        body: impl FnOnce() -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output: Ending>,
    {
        Self::on_runtime(name, body, || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .start_paused(true)
                .build()
        })
    }

    fn on_runtime<F>(
        name: impl Into<String>,
        body: impl FnOnce() -> F + Send + 'static,
        runtime: fn() -> io::Result<Runtime>,
    ) -> Self
    where
        F: Future<Output: Ending>,
    {
        let body = move |stop| {
            let runtime = runtime().map_err(|error| format!("no runtime: {error}"))?;
            let ended = runtime.block_on(async {
                match select(pin!(body()), stop).await {
                    Either::Left((ending, _)) => ending.into_result(),
                    // Said by whoever told us to stop.
                    Either::Right(_) => Ok(()),
                }
            });
            runtime.shutdown_timeout(Duration::from_secs(5));
            ended
        };
        Self::with_body(name, Box::new(body))
    }

    /// A case without a runtime.
    pub fn blocking<E: Ending>(
        name: impl Into<String>,
        body: impl FnOnce() -> E + Send + 'static,
    ) -> Self {
        Self::with_body(name, Box::new(|_| body().into_result()))
    }

    fn with_body(name: impl Into<String>, body: Body) -> Self {
        Self {
            name: name.into(),
            server: None,
            limit: LIMIT,
            body,
        }
    }

    /// Says that the case needs a server.
    #[must_use]
    pub fn needs(mut self, server: Server) -> Self {
        self.server = Some(server);
        self
    }

    /// Sets how long the case may take, instead of two minutes.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    fn into_trial(self, require_servers: bool) -> Trial {
        Trial::ignorable_test(self.name.clone(), move || {
            if let Some(Err(missing)) = self.server.map(Server::available) {
                return if require_servers {
                    Err(Failed::from(missing.to_string()))
                } else {
                    Ok(Completion::ignored_with(missing))
                };
            }
            within_limit(&self.name, self.limit, self.body)?;
            Ok(Completion::Completed)
        })
    }
}

/// Runs the cases as the command line says, which is that of any Rust test program.
pub fn run(cases: impl IntoIterator<Item = Case>) -> ExitCode {
    let require_servers = env::var("INTERLINE_TEST_REQUIRE_SERVERS").is_ok_and(|set| set == "1");
    let trials = cases
        .into_iter()
        .map(|case| case.into_trial(require_servers))
        .collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// Whether large counts are asked for, as by `tests/run soak`.
pub fn soak() -> bool {
    env::var("INTERLINE_TEST_SOAK").is_ok_and(|set| set == "1")
}

fn within_limit(name: &str, limit: Duration, body: Body) -> Result<(), String> {
    let (stop, stopped) = oneshot::channel();
    let (report, reported) = mpsc::sync_channel(1);
    // Named so that a panic says whose it is.
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(move || {
        let ended = catch_unwind(AssertUnwindSafe(|| body(stopped)));
        let _ = report.send(ended.unwrap_or_else(|panic| Err(panic_text(&*panic))));
    });
    spawned.map_err(|error| format!("no thread: {error}"))?;
    if let Ok(ended) = reported.recv_timeout(limit) {
        return ended;
    }
    // Dropping the body ends its servers; a body that blocks for ever is left behind.
    let _ = stop.send(());
    let late = match reported.recv_timeout(GRACE) {
        Ok(Err(error)) => format!("; then: {error}"),
        Ok(Ok(())) => String::new(),
        Err(_) => ", and does not end when told to".to_owned(),
    };
    Err(format!("still running after {limit:?}{late}"))
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    if let Some(text) = panic.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text.clone()
    } else {
        "panicked with something that is not text".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(case: Case) -> Result<(), String> {
        within_limit(&case.name, case.limit, case.body)
    }

    #[test]
    fn a_case_passes_fails_or_panics() {
        assert_eq!(outcome(Case::new("ok", || async {})), Ok(()));
        assert_eq!(outcome(Case::blocking("ok", || Ok::<(), u8>(()))), Ok(()));
        assert_eq!(
            outcome(Case::new("error", || async { Err::<(), _>("wrong") })),
            Err("\"wrong\"".to_owned())
        );
        assert_eq!(
            outcome(Case::new("panic", || async {
                assert!(false_at_run_time(), "was false");
            })),
            Err("was false".to_owned())
        );
    }

    fn false_at_run_time() -> bool {
        env::args().count() == 0
    }

    #[test]
    fn a_case_that_hangs_is_ended_and_its_values_dropped() {
        let (dropped, on_drop) = mpsc::channel();
        struct Notice(mpsc::Sender<()>);
        impl Drop for Notice {
            fn drop(&mut self) {
                let _ = self.0.send(());
            }
        }

        let ended = outcome(
            Case::new("hang", move || async move {
                let _notice = Notice(dropped);
                std::future::pending::<()>().await;
            })
            .limit(Duration::from_millis(20)),
        );

        assert_eq!(ended, Err("still running after 20ms".to_owned()));
        on_drop.try_recv().unwrap();
    }

    #[test]
    fn virtual_time_does_not_count_towards_the_limit() {
        let ended = outcome(
            Case::with_virtual_time("day", || tokio::time::sleep(Duration::from_secs(86_400)))
                .limit(Duration::from_secs(30)),
        );
        assert_eq!(ended, Ok(()));
    }
}
