//! The directory of one server, its ports, and what earlier test processes left behind.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::ServerError;

/// Carried by every process of a server, so that a leftover is told from a process that merely has
/// the same id.
pub(super) const MARK: &str = "INTERLINE_TEST_SERVER_DIRECTORY";

const OWNER: &str = "owner";

/// Below the range from which systems take the ports of outgoing connections: while a server is
/// down between two starts, nobody else is given its port, and no client that retries is connected
/// to itself.
const PORTS: std::ops::Range<u16> = 18_000..32_000;

pub(super) struct Workplace {
    path: PathBuf,
}

impl Workplace {
    /// Makes a directory for a server of this process, after sweeping those of processes that are
    /// gone.
    pub(super) fn create(kind: &str) -> Result<Self, ServerError> {
        static NEXT: AtomicU32 = AtomicU32::new(0);

        let root = root();
        fs::create_dir_all(&root).map_err(ServerError::io(format!(
            "making {} (TMPDIR chooses another place)",
            root.display()
        )))?;
        sweep(&root);
        let name = format!(
            "{kind}-{}-{}",
            process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let path = root.join(&name);
        let unnamed = root.join(format!(".{name}"));
        let made = || -> io::Result<()> {
            // The remains of an earlier process that had our id, which the sweep took for us.
            for old in [&path, &unnamed] {
                if old.exists() {
                    fs::remove_dir_all(old)?;
                }
            }
            fs::create_dir(&unnamed)?;
            fs::write(unnamed.join(OWNER), owner_line(process::id()))?;
            // Only a directory that says whose it is gets a name that another sweep looks at.
            fs::rename(&unnamed, &path)
        };
        made().map_err(ServerError::io(format!("making {}", path.display())))?;
        Ok(Self { path })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file of the server and returns where it is.
    pub(super) fn write(&self, name: &str, text: &str) -> Result<PathBuf, ServerError> {
        let path = self.path.join(name);
        fs::write(&path, text)
            .map_err(ServerError::io(format!("writing {}", path.display())))
            .map(|()| path)
    }

    /// Makes a directory of the server and returns where it is.
    pub(super) fn directory(&self, name: &str) -> Result<PathBuf, ServerError> {
        let path = self.path.join(name);
        fs::create_dir_all(&path)
            .map_err(ServerError::io(format!("making {}", path.display())))
            .map(|()| path)
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        // A failure is repaired by the guard, and then by the next sweep.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// As many different ports of the loopback interface as `N` that nobody listens on.
pub(super) fn free_ports<const N: usize>() -> Result<[u16; N], ServerError> {
    let mut held = Vec::with_capacity(N);
    for _ in 0..10_000 {
        if held.len() == N {
            break;
        }
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, fastrand::u16(PORTS))) {
            held.push(listener);
        }
    }
    let ports: io::Result<Vec<u16>> = held
        .iter()
        .map(|listener| Ok(listener.local_addr()?.port()))
        .collect();
    ports
        .map_err(ServerError::io("asking for a free port"))?
        .try_into()
        .map_err(|_| ServerError::Io {
            action: format!("finding {N} free ports in {}-{}", PORTS.start, PORTS.end),
            source: io::ErrorKind::AddrInUse.into(),
        })
}

/// Sends a signal through the shell, whose `kill` is there even where no package brings one.
/// `target` is a process id, or a group with a minus before it.
pub(super) fn send_signal(signal: &str, target: &str) -> io::Result<bool> {
    Command::new("sh")
        .args(["-c", r#"kill -s "$1" -- "$2""#, "kill", signal, target])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .map(|status| status.success())
}

fn root() -> PathBuf {
    std::env::temp_dir().join("interline-test-servers")
}

/// Ends the servers and removes the directories of test processes that are gone. Best effort: what
/// cannot be read or removed is another user's.
fn sweep(root: &Path) {
    let Ok(entries) = fs::read_dir(root) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with('.') {
            let age = entry.metadata().and_then(|data| data.modified()).ok();
            if age.and_then(|time| time.elapsed().ok()) > Some(Duration::from_secs(3600)) {
                let _ = fs::remove_dir_all(&path);
            }
            continue;
        }
        let Ok(owner) = fs::read_to_string(path.join(OWNER)) else {
            continue;
        };
        if owner_is_alive(&owner) {
            continue;
        }
        for id in marked_processes(&path) {
            let _ = send_signal("KILL", &id.to_string());
        }
        let _ = fs::remove_dir_all(&path);
    }
}

fn owner_line(id: u32) -> String {
    format!("{id} {}", start_time(id).unwrap_or_default())
}

/// Whether the process is the one that wrote `owner`: ids are used again, start times are not.
/// Where the system does not tell start times, every owner counts as alive.
fn owner_is_alive(owner: &str) -> bool {
    if !Path::new("/proc/self/stat").exists() {
        return true;
    }
    let id = owner
        .split_whitespace()
        .next()
        .and_then(|id| id.parse().ok());
    id.is_some_and(|id| owner_line(id) == owner && start_time(id).is_some())
}

/// When the process started, in clock ticks since the machine did.
fn start_time(id: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The program's name, in parentheses, may hold spaces and parentheses itself.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    // A zombie does nothing any more, though its parent has not yet looked.
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

fn marked_processes(directory: &Path) -> Vec<u32> {
    let mark = format!("{MARK}={}", directory.display());
    let Ok(processes) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|id| {
            fs::read(format!("/proc/{id}/environ")).is_ok_and(|environment| {
                environment
                    .split(|&byte| byte == 0)
                    .any(|pair| pair == mark.as_bytes())
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marked_sleeper(directory: &Path) -> process::Child {
        Command::new("sleep")
            .arg("60")
            .env(MARK, directory)
            .spawn()
            .unwrap()
    }

    fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
        for _ in 0..1000 {
            if done() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("still waiting until {what}");
    }

    #[test]
    fn a_sweep_ends_what_a_dead_owner_left_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let (dead, alive) = (root.path().join("dead"), root.path().join("alive"));
        fs::create_dir(&dead).unwrap();
        fs::create_dir(&alive).unwrap();
        let mut owner = Command::new("true").spawn().unwrap();
        owner.wait().unwrap();
        fs::write(dead.join(OWNER), format!("{} 1", owner.id())).unwrap();
        fs::write(alive.join(OWNER), owner_line(process::id())).unwrap();
        let mut left = marked_sleeper(&dead);
        let mut used = marked_sleeper(&alive);
        wait_until("both are marked", || {
            marked_processes(&dead) == [left.id()] && marked_processes(&alive) == [used.id()]
        });

        sweep(root.path());

        wait_until("the leftover is gone", || {
            left.try_wait().unwrap().is_some()
        });
        assert!(!dead.exists());
        assert!(alive.exists());
        assert_eq!(used.try_wait().unwrap(), None);
        used.kill().unwrap();
        used.wait().unwrap();
    }

    #[test]
    fn a_process_with_the_id_of_the_owner_is_not_the_owner() {
        assert!(owner_is_alive(&owner_line(process::id())));
        assert!(!owner_is_alive(&format!("{} 1", process::id())));
        assert!(!owner_is_alive(""));
    }

    #[test]
    fn free_ports_differ() {
        let ports: [u16; 20] = free_ports().unwrap();
        let different: std::collections::BTreeSet<_> = ports.iter().collect();
        assert_eq!(different.len(), 20);
    }
}
