//! A server process of our own.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::guard::Guard;
use super::workplace::{MARK, Workplace, send_signal};
use super::{Launch, ServerError};

/// The processes of one server, all in one process group, and the directory they live in.
pub(super) struct LocalServer {
    kind: &'static str,
    /// In the order in which they start; the last is the server, the others are what it needs.
    launches: Vec<Launch>,
    log_directory: PathBuf,
    state: Mutex<State>,
    // Last, so that the directory goes after the processes that write into it.
    workplace: Workplace,
}

struct State {
    running: Vec<Child>,
    guard: Guard,
}

impl State {
    /// The first process leads the group.
    fn group(&self) -> Option<u32> {
        self.running.first().map(Child::id)
    }

    fn all_gone(&mut self) -> bool {
        self.running
            .iter_mut()
            .all(|child| !matches!(child.try_wait(), Ok(None)))
    }

    fn kill_group(&mut self) {
        // Once all are gone the id of the group may be somebody else's.
        if self.all_gone() {
            return;
        }
        if let Some(group) = self.group() {
            let _ = send_signal("KILL", &format!("-{group}"));
        }
    }

    fn forget(&mut self) -> Result<(), ServerError> {
        self.running.clear();
        self.guard
            .watch(None)
            .map_err(ServerError::io("telling the guard that the server is gone"))
    }
}

impl LocalServer {
    pub(super) fn new(
        kind: &'static str,
        workplace: Workplace,
        log_directory: PathBuf,
        launches: Vec<Launch>,
    ) -> Result<Self, ServerError> {
        let guard = Guard::start(workplace.path())
            .map_err(ServerError::io("starting the guard of the server"))?;
        let state = Mutex::new(State {
            running: Vec::new(),
            guard,
        });
        Ok(Self {
            kind,
            launches,
            log_directory,
            state,
            workplace,
        })
    }

    /// Starts all programs; none may be running.
    pub(super) fn launch(&self) -> Result<(), ServerError> {
        let mut state = self.state();
        debug_assert!(state.running.is_empty());
        for launch in &self.launches {
            let child = self.spawn(launch, state.group())?;
            state.running.push(child);
            let group = state.group();
            state
                .guard
                .watch(group)
                .map_err(ServerError::io("telling the guard what to watch"))?;
        }
        Ok(())
    }

    fn spawn(&self, launch: &Launch, group: Option<u32>) -> Result<Child, ServerError> {
        let name = launch
            .program
            .file_name()
            .unwrap_or_default()
            .to_string_lossy();
        let output = self.log_directory.join(format!("{name}.out"));
        let start = || {
            let output = File::options().create(true).append(true).open(&output)?;
            Command::new(&launch.program)
                .args(&launch.arguments)
                // What the caller's environment says about a server is about another one.
                .env_clear()
                .env("PATH", std::env::var_os("PATH").unwrap_or_default())
                .env("LANG", "C.UTF-8")
                .env(MARK, self.workplace.path())
                .envs(launch.environment.iter().map(|(name, value)| (name, value)))
                .current_dir(self.workplace.path())
                .stdin(Stdio::null())
                .stdout(output.try_clone()?)
                .stderr(output)
                .process_group(group.map_or(0, u32::cast_signed))
                .spawn()
        };
        start().map_err(ServerError::io(format!(
            "starting {}",
            launch.program.display()
        )))
    }

    pub(super) fn process_id(&self) -> Option<u32> {
        let mut state = self.state();
        let server = state.running.last_mut()?;
        matches!(server.try_wait(), Ok(None)).then(|| server.id())
    }

    /// How the server ended, if it did so by itself.
    pub(super) fn exit_status(&self) -> Option<ExitStatus> {
        self.state().running.last_mut()?.try_wait().ok()?
    }

    pub(super) async fn kill(&self) -> Result<(), ServerError> {
        self.state().kill_group();
        self.gone(Duration::from_secs(10)).await
    }

    pub(super) async fn terminate(&self) -> Result<(), ServerError> {
        let limit = Duration::from_secs(60);
        let Some(id) = self.process_id() else {
            return self.kill().await;
        };
        send_signal("TERM", &id.to_string())
            .map_err(ServerError::io(format!("sending TERM to {}", self.kind)))?;
        let end = Instant::now() + limit;
        while self.process_id().is_some() {
            if Instant::now() > end {
                self.kill().await?;
                return Err(ServerError::NotDown {
                    server: self.kind,
                    waited: limit,
                });
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.kill().await
    }

    pub(super) fn signal(&self, signal: &'static str) -> Result<(), ServerError> {
        let operation = if signal == "STOP" { "pause" } else { "resume" };
        let down = ServerError::Down {
            server: self.kind,
            operation,
        };
        let Some(group) = self.process_id().and_then(|_| self.state().group()) else {
            return Err(down);
        };
        match send_signal(signal, &format!("-{group}")) {
            Ok(true) => Ok(()),
            Ok(false) => Err(down),
            Err(source) => Err(ServerError::Io {
                action: format!("sending {signal} to {}", self.kind),
                source,
            }),
        }
    }

    async fn gone(&self, limit: Duration) -> Result<(), ServerError> {
        let end = Instant::now() + limit;
        while !self.state().all_gone() {
            if Instant::now() > end {
                return Err(ServerError::NotDown {
                    server: self.kind,
                    waited: limit,
                });
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        self.state().forget()
    }

    pub(super) fn log_directory(&self) -> &Path {
        &self.log_directory
    }

    /// The last `lines` lines of each log file.
    pub(super) fn logs(&self, lines: usize) -> String {
        let Ok(entries) = fs::read_dir(&self.log_directory) else {
            return String::new();
        };
        let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        let mut text = String::new();
        for path in paths {
            let Ok(content) = fs::read(&path) else {
                continue;
            };
            let content = String::from_utf8_lossy(&content);
            let all: Vec<_> = content.lines().collect();
            if all.is_empty() {
                continue;
            }
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let tail = all[all.len().saturating_sub(lines)..].join("\n");
            let _ = writeln!(text, "== {name}\n{tail}");
        }
        text
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for LocalServer {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!(
                "the test failed; the end of the log of {}:\n{}",
                self.kind,
                self.logs(20)
            );
        }
        let mut state = self.state();
        state.kill_group();
        let limit = Instant::now() + Duration::from_secs(5);
        while !state.all_gone() && Instant::now() < limit {
            thread::sleep(Duration::from_millis(2));
        }
        // If it is not gone the guard must go on watching it.
        if state.all_gone() {
            let _ = state.forget();
        }
    }
}
