//! What a message costs in instructions and allocations, on the embedded broker, through the whole
//! engine.
//!
//! ```sh
//! cargo bench -p interline-tests --bench cost
//! ```
//!
//! It runs itself under `valgrind --tool=callgrind`, once with N messages and once with 2 N: the
//! difference is what N messages cost, without start and end. The counts do not depend on what else
//! runs on the machine. One thread runs everything, so that they repeat.

mod callgrind;
mod load;

use std::env;
use std::process::ExitCode;

use callgrind::Counts;
use load::{SCENARIOS, Scenario};

interline::service!("bench");

/// More than the embedded broker keeps for late subscribers, so that its log is full in both runs.
const MESSAGES: u64 = 20_000;

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let done = match &*arguments {
        [mode, scenario, count] if mode == "run" => load::run(scenario, count),
        _ => compare(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn compare() -> Result<(), String> {
    println!("| embedded broker, small JSON | instructions | allocations |");
    println!("| --- | ---: | ---: |");
    for scenario in SCENARIOS {
        let counts = of_each(scenario)?;
        println!(
            "| {} | {:.0} | {:.1} |",
            scenario.title, counts.instructions, counts.allocations
        );
    }
    println!(
        "\nper message, from {MESSAGES} and {} messages",
        2 * MESSAGES
    );
    Ok(())
}

/// The cost of one message.
fn of_each(scenario: &Scenario) -> Result<PerMessage, String> {
    let once = callgrind::run(scenario.name, MESSAGES)?;
    let twice = callgrind::run(scenario.name, 2 * MESSAGES)?;
    let each = |count: fn(&Counts) -> u64| {
        let more = count(&twice).saturating_sub(count(&once));
        #[expect(clippy::cast_precision_loss, reason = "counts here are far below 2^52")]
        let each = more as f64 / MESSAGES as f64;
        each
    };
    Ok(PerMessage {
        instructions: each(|counts| counts.instructions),
        allocations: each(|counts| counts.allocations),
    })
}

struct PerMessage {
    instructions: f64,
    allocations: f64,
}
