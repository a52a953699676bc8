//! Runs this program under callgrind and reads what it counted.

use std::collections::HashSet;
use std::fs;
use std::process::Command;

/// The C library's functions that give memory; Rust's allocator calls them.
const ALLOCATORS: &[&str] = &[
    "aligned_alloc",
    "calloc",
    "malloc",
    "posix_memalign",
    "realloc",
];

/// What one run executed.
pub(crate) struct Counts {
    pub(crate) instructions: u64,
    pub(crate) allocations: u64,
}

/// One run of a scenario with so many messages.
pub(crate) fn run(scenario: &str, messages: u64) -> Result<Counts, String> {
    let own = std::env::current_exe().map_err(|error| format!("this program's path: {error}"))?;
    let temporary =
        tempfile::tempdir().map_err(|error| format!("a folder for the counts: {error}"))?;
    // Kept where somebody wants to look at it with `callgrind_annotate`.
    let kept = std::env::var_os("INTERLINE_BENCH_CALLGRIND_DIR");
    let folder = kept.map_or_else(|| temporary.path().to_owned(), std::path::PathBuf::from);
    let file = folder.join(format!("callgrind.{scenario}.{messages}"));
    let mut option = std::ffi::OsString::from("--callgrind-out-file=");
    option.push(&file);
    let ran = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet"])
        .arg(option)
        .arg(own)
        .args(["run", scenario, &messages.to_string()])
        .output();
    let output = ran.map_err(|error| {
        format!(
            "valgrind is needed to count instructions (Debian: `apt-get install valgrind`): {error}"
        )
    })?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(format!(
            "`{scenario}` under valgrind: {}\n{text}",
            output.status
        ));
    }
    let text = fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    read(&text).ok_or_else(|| format!("{} is not callgrind's output", file.display()))
}

/// Reads callgrind's own format: `summary:` or `totals:` has the instructions; each `calls=` line
/// follows the `cfn=` line that names what was called, `(number) name` at first, `(number)` then.
fn read(text: &str) -> Option<Counts> {
    let mut instructions = None;
    let mut allocations = 0;
    let mut allocators = HashSet::new();
    let mut called = "";
    for line in text.lines() {
        if let Some(total) = line.strip_prefix("totals:") {
            instructions = total.trim().parse().ok();
        }
        let Some((key, value)) = line.split_once('=') else {
            continue;
        };
        match key {
            "fn" | "cfn" => {
                let (number, name) = value.split_once(' ').unwrap_or((value, ""));
                if ALLOCATORS.contains(&name) {
                    allocators.insert(number);
                }
                if key == "cfn" {
                    called = number;
                }
            }
            "calls" if allocators.contains(called) => {
                allocations += value.split(' ').next()?.parse::<u64>().ok()?;
            }
            _ => {}
        }
    }
    Some(Counts {
        instructions: instructions?,
        allocations,
    })
}
