//! The ledger service as a process.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::{Child, ChildStdin, Command};
use tokio::time::{Instant, timeout};

use crate::trouble::{LIMIT, Outcome, Trouble, until};

const READY: &str = "the ledger is open";

/// A running service; killed when dropped.
pub(crate) struct Service {
    child: Child,
    /// The service ends with it; waiting for the child would close its own.
    _input: Option<ChildStdin>,
    log: PathBuf,
    /// How long the log was when it started.
    before: usize,
}

impl Service {
    /// Starts it, without waiting for anything.
    pub(crate) fn spawn(environment: &[(String, String)], log: &Path) -> Outcome<Self> {
        let before = read(log).len();
        let file = OpenOptions::new().create(true).append(true).open(log)?;
        let mut child = Command::new(env!("CARGO_BIN_EXE_ledger-service"))
            .env(
                "RUST_LOG",
                "info,interline::messaging::engine::process=error",
            )
            .envs(environment.iter().cloned())
            .stdin(Stdio::piped())
            .stdout(file.try_clone()?)
            .stderr(file)
            .kill_on_drop(true)
            .spawn()?;
        Ok(Self {
            _input: child.stdin.take(),
            child,
            log: log.to_owned(),
            before,
        })
    }

    /// Waits until it consumes.
    pub(crate) async fn ready(&mut self) -> Outcome {
        until("the service is ready", LIMIT, async || {
            if let Some(status) = self.child.try_wait()? {
                return Err(Trouble::new(format!(
                    "the service ended by itself: {status}"
                )));
            }
            Ok(self.said(READY) > 0)
        })
        .await
        .map(drop)
    }

    /// How often it has said that since it started.
    pub(crate) fn said(&self, text: &str) -> usize {
        read(&self.log)
            .get(self.before..)
            .map_or(0, |log| log.matches(text).count())
    }

    /// Ends it as a crash would, and waits until it is gone.
    pub(crate) async fn kill(mut self) -> Outcome {
        self.child.kill().await?;
        Ok(())
    }

    /// Asks it to end.
    pub(crate) async fn signal_to_end(&self) -> Outcome {
        let id = self
            .child
            .id()
            .ok_or_else(|| Trouble::new("the service has ended already"))?;
        let sent = Command::new("kill")
            .args(["-TERM", &id.to_string()])
            .status()
            .await?;
        if sent.success() {
            Ok(())
        } else {
            Err(Trouble::new("the service cannot be signalled"))
        }
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(mut self, limit: Duration) -> Outcome<ExitStatus> {
        match timeout(limit, self.child.wait()).await {
            Ok(status) => Ok(status?),
            Err(_) => Err(Trouble::new(format!("the service runs on after {limit:?}"))),
        }
    }

    /// Asks it to end and waits until it did, with success; returns how long that took.
    pub(crate) async fn terminate(self, limit: Duration) -> Outcome<Duration> {
        let begun = Instant::now();
        self.signal_to_end().await?;
        let status = self.ended(limit).await?;
        if status.success() {
            Ok(begun.elapsed())
        } else {
            Err(Trouble::new(format!("the service ended with {status}")))
        }
    }
}

/// All of a log, as far as it is there.
pub(crate) fn read(log: &Path) -> String {
    let bytes = std::fs::read(log).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}
