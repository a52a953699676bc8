//! The process that outlives the test process just long enough to end its server.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;
use std::{io, thread, time::Instant};

/// Reads the group to end from its standard input. The other end of that pipe is held by the test
/// process alone, so its end of file says that the test process is gone, however it went.
const SCRIPT: &str = r#"
trap '' HUP INT TERM
group=
while read -r line; do group=$line; done
[ -z "$group" ] || kill -s KILL -- "-$group" 2>/dev/null
rm -rf -- "$1" 2>/dev/null || { sleep 1; rm -rf -- "$1"; }
"#;

pub(super) struct Guard {
    child: Child,
    orders: Option<ChildStdin>,
}

impl Guard {
    /// Starts a guard over nothing yet; `directory` is removed with the server.
    pub(super) fn start(directory: &Path) -> io::Result<Self> {
        let mut child = Command::new("sh")
            .args(["-c", SCRIPT, "interline-test-server-guard"])
            .arg(directory)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C in a terminal goes to the whole group of the test process.
            .process_group(0)
            .spawn()?;
        let orders = child.stdin.take();
        Ok(Self { child, orders })
    }

    /// Names the process group to end; `None` when there is nothing to end any more.
    pub(super) fn watch(&mut self, group: Option<u32>) -> io::Result<()> {
        let Some(orders) = &mut self.orders else {
            return Ok(());
        };
        match group {
            Some(group) => writeln!(orders, "{group}"),
            None => writeln!(orders),
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.orders.take());
        let limit = Instant::now() + Duration::from_secs(5);
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < limit {
            thread::sleep(Duration::from_millis(2));
        }
    }
}
