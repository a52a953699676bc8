//! What a client adds to the time of a call. The rows take turns call by call, so that whatever slows
//! the machine down slows all of them down, and what counts is the difference within a turn.

use std::sync::Arc;
use std::time::Instant;

use tokio::task::JoinSet;

use crate::Result;
use crate::rounds::Spread;
use crate::rows::{Clients, Kind};

/// Turns of each caller before those that count.
const WARM: usize = 20;

pub(crate) struct Turns {
    pub(crate) callers: usize,
    /// Calls of each row in a round.
    pub(crate) calls: usize,
}

/// Of each row, how long its call in each turn took, in nanoseconds.
type Samples = Vec<Vec<u64>>;

/// How a row went in one round, in microseconds.
struct Times {
    middle: f64,
    late: f64,
    /// The median of the differences to the first row in the same turn.
    added_middle: f64,
    added_late: f64,
}

impl Turns {
    pub(crate) fn title(&self) -> String {
        format!(
            "Added time: {} calls of each row by {} at a time, in turn",
            self.calls, self.callers
        )
    }

    /// Runs the rounds and prints the table. A round that fails its check counts for no row.
    pub(crate) async fn run(&self, clients: &Arc<Clients>, rounds: usize) -> Result<()> {
        let begun = Instant::now();
        let mut passed = Vec::new();
        for round in 0..rounds {
            match self.round(clients).await {
                Ok(times) => passed.push(times),
                Err(error) => eprintln!("{}: round {round} does not count: {error}", self.title()),
            }
        }
        println!("### {}\n", self.title());
        if passed.is_empty() {
            return Err("no round passed its check".into());
        }
        print(&passed, rounds);
        eprintln!("({} took {:?})", self.title(), begun.elapsed());
        Ok(())
    }

    async fn round(&self, clients: &Arc<Clients>) -> Result<Vec<Times>> {
        let before = clients.answered().await?;
        let each = self.calls.div_ceil(self.callers);
        let mut calling = JoinSet::new();
        for caller in 0..self.callers {
            calling.spawn(take_turns(Arc::clone(clients), caller, each));
        }
        let mut samples: Samples = vec![Vec::new(); Kind::ALL.len()];
        while let Some(taken) = calling.join_next().await {
            for (all, more) in samples.iter_mut().zip(taken??) {
                all.extend(more);
            }
        }
        let calls = (each + WARM) * self.callers;
        clients.check(&before, calls as u64).await?;
        Ok(times(&samples))
    }
}

/// One caller: it asks each row once in every turn, beginning with another one each time and going
/// backwards in every second turn, so that each row is called after different ones.
async fn take_turns(clients: Arc<Clients>, caller: usize, turns: usize) -> Result<Samples> {
    let rows = clients.all.len();
    let mut samples: Samples = vec![Vec::with_capacity(turns); rows];
    for turn in 0..WARM + turns {
        for step in 0..rows {
            let step = if turn.is_multiple_of(2) {
                step
            } else {
                rows - 1 - step
            };
            let row = (caller + turn / 2 + step) % rows;
            let id = turn as u64;
            let begun = Instant::now();
            clients.all[row].order(id).await?;
            let took = u64::try_from(begun.elapsed().as_nanos())?;
            if turn >= WARM {
                samples[row].push(took);
            }
        }
    }
    Ok(samples)
}

fn times(samples: &Samples) -> Vec<Times> {
    let base = &samples[0];
    let base_late = quantile(base.iter().map(|took| micros(*took)), 0.99);
    let rows = samples.iter().map(|row| {
        let took = || row.iter().map(|took| micros(*took));
        let added = took().zip(base).map(|(own, base)| own - micros(*base));
        let late = quantile(took(), 0.99);
        Times {
            middle: quantile(took(), 0.5),
            late,
            added_middle: quantile(added, 0.5),
            added_late: late - base_late,
        }
    });
    rows.collect()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "times here are far below 2^52 ns"
)]
fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1_000.0
}

/// The smallest value that is not below this share of them.
pub(crate) fn quantile(values: impl Iterator<Item = f64>, share: f64) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a count that fits in memory, times at most 1"
    )]
    let place = (values.len() as f64 * share) as usize;
    values[place.min(values.len() - 1)]
}

fn print(passed: &[Vec<Times>], rounds: usize) {
    println!("| row | p50 µs | added | min-max | p99 µs | added | min-max |");
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: |");
    for (row, kind) in Kind::ALL.into_iter().enumerate() {
        let of =
            |value: fn(&Times) -> f64| Spread::of(passed.iter().map(|round| value(&round[row])));
        let (middle, late) = (of(|times| times.middle), of(|times| times.late));
        let mut line = format!("| {} |", kind.title());
        for (whole, added) in [
            (middle, of(|times| times.added_middle)),
            (late, of(|times| times.added_late)),
        ] {
            line += &format!(
                " {:.1} | {:+.1} | {:+.1} to {:+.1} |",
                whole.median, added.median, added.min, added.max
            );
        }
        println!("{line}");
    }
    println!(
        "\n{} of {rounds} rounds passed their checks\n",
        passed.len()
    );
}
