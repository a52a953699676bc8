//! What time and processors a row took.

use std::time::{Duration, Instant};

/// A point in time, and what this process has used of the processors until then.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    at: Instant,
    used: Duration,
}

impl Moment {
    pub(crate) fn now() -> Self {
        Self {
            at: Instant::now(),
            used: processor_time(),
        }
    }
}

/// How a row went.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Measured {
    /// Messages, or calls, in a second.
    pub(crate) rate: f64,
    /// Microseconds of processor time of this process for each of them. What else runs on the
    /// machine bears on it much less than on the rate.
    pub(crate) used: f64,
}

impl Measured {
    pub(crate) fn between(begun: Moment, ended: Moment, count: u64) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "counts here are far below 2^52")]
        let count = count as f64;
        Self {
            rate: count / (ended.at - begun.at).as_secs_f64(),
            used: (ended.used - begun.used).as_secs_f64() * 1e6 / count,
        }
    }
}

/// What all threads of this process have used so far, in steps of 10 ms; zero where the system has
/// no `/proc`.
fn processor_time() -> Duration {
    const TICK: Duration = Duration::from_millis(10);
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name of the program, in brackets, may hold anything.
    let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
    let ticks = fields.split(' ').skip(11).take(2);
    let ticks = ticks.filter_map(|field| field.parse::<u32>().ok());
    TICK * ticks.sum::<u32>()
}
