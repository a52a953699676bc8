//! What calling another service costs: reqwest alone, what others put around it, and Interline's
//! service client, on the same upstream with kept connections, taking turns in one process.
//!
//! ```sh
//! cargo bench -p interline-tests --bench clients                        # everything, 5 rounds
//! cargo bench -p interline-tests --bench clients -- added 16 --rounds 9
//! cargo bench -p interline-tests --bench clients -- rate --rounds 1 --calls 1000
//! ```
//!
//! Words choose the tables whose titles contain all of them. How to read the tables stands in
//! `docs/benchmarks.md`.

#[path = "../cost/callgrind.rs"]
mod callgrind;
mod instructions;
mod layers;
#[path = "../shared/measured.rs"]
mod measured;
mod memory;
mod order;
mod parts;
mod rates;
#[path = "../shared/rounds.rs"]
mod rounds;
mod rows;
mod swap;
mod turns;
mod upstream;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use interline_tests::asked::Asked;
use rates::Rates;
use rows::{Clients, Kind};
use tokio::runtime::Runtime;
use turns::Turns;
use upstream::{Manner, Upstream};

interline::service!("bench");

pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// How long anything may take that has to happen.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);

const ROUNDS: u64 = 5;
/// Calls of each row in a round.
const CALLS: u64 = 60_000;
/// Calls that are open at a time.
const CALLERS: &[u64] = &[1, 16, 64];
/// Calls that are open at a time where the time of each counts.
const IN_TURN: &[usize] = &[1, 16];
/// How often each part is done, for every call that is made of a row.
const PARTS: u64 = 10;
/// A call under callgrind takes fifty times as long as another.
const COUNTED: u64 = 20;

/// The tables in which all clients make calls.
async fn calls(asked: &Asked, rounds: usize, calls: u64) -> Result<usize> {
    let titled = |callers: &&u64| asked.includes(&rates::title(**callers, calls));
    let rated: Vec<_> = CALLERS.iter().filter(titled).collect();
    let turns = IN_TURN.iter().map(|callers| Turns {
        callers: *callers,
        calls: usize::try_from(calls / 4).unwrap_or(usize::MAX).max(1),
    });
    let turns: Vec<_> = turns
        .filter(|table| asked.includes(&table.title()))
        .collect();
    let count = rated.len() + turns.len();
    if count == 0 {
        return Ok(0);
    }
    let upstream = Upstream::start(Kind::ALL.len(), Manner::Kept)?;
    let clients = Arc::new(Clients::connect(upstream).await?);
    for callers in rated {
        rounds::run(&Rates::new(&clients, *callers, calls), rounds).await?;
    }
    for table in turns {
        table.run(&clients, rounds).await?;
    }
    if let Some(clients) = Arc::into_inner(clients) {
        for client in clients.all {
            client.close().await;
        }
    }
    Ok(count)
}

fn run(runtime: &Runtime, asked: &Asked) -> Result<()> {
    let (rounds, each) = (
        usize::try_from(asked.number("rounds"))?,
        asked.number("calls"),
    );
    let mut ran = runtime.block_on(calls(asked, rounds, each))?;
    if asked.includes(parts::TITLE) {
        ran += 1;
        parts::run(rounds, each * PARTS)?;
    }
    if asked.includes(swap::TITLE) {
        ran += 1;
        runtime.block_on(swap::run(2 * rounds))?;
    }
    if asked.includes(memory::TITLE) {
        ran += 1;
        memory::run()?;
    }
    if asked.includes(instructions::TITLE) {
        ran += 1;
        instructions::run((each / COUNTED).max(1))?;
    }
    if ran == 0 {
        return Err(format!("no table's title contains all of {:?}", asked.words()).into());
    }
    Ok(())
}

fn role(arguments: &[String]) -> Result<()> {
    match arguments.split_first() {
        Some((role, rest)) if role == upstream::ROLE => return upstream::serve(rest),
        Some((role, rest)) if role == instructions::ROLE => return instructions::calls(rest),
        _ => {}
    }
    // Two workers, whatever the machine has: the same for all rows.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let done = match arguments.split_first() {
        Some((role, rest)) if role == memory::ROLE => runtime.block_on(memory::measure(rest)),
        _ => {
            let options = [("rounds", ROUNDS), ("calls", CALLS)];
            let asked = Asked::read(arguments.iter().cloned(), &options);
            asked
                .map_err(Into::into)
                .and_then(|asked| run(&runtime, &asked))
        }
    };
    runtime.shutdown_timeout(Duration::from_secs(5));
    done
}

fn main() -> ExitCode {
    // What the client crate takes where TLS is built in and nobody chose: without one it panics. A
    // second one is refused, and there is none before.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match role(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
