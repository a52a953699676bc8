//! How soon a service handles messages again when its broker comes back, what is handled twice then,
//! and how fast dead letters are sent back.
//!
//! ```sh
//! cargo bench -p interline-tests --bench recovery                       # everything, eight minutes
//! cargo bench -p interline-tests --bench recovery -- restart kafka --restarts 20
//! cargo bench -p interline-tests --bench recovery -- dead letters --letters 10000
//! ```
//!
//! Words choose the lines whose names contain all of them. Nothing may be lost: every confirmed message
//! has to be handled, or the program fails.

mod book;
mod broker;
mod letters;
mod restarts;

use std::env;
use std::process::ExitCode;
use std::time::Duration;

use broker::Broker;
use interline_tests::asked::Asked;

interline::service!("bench");

type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T> = std::result::Result<T, Error>;

/// How long anything may take that has to happen.
const LIMIT: Duration = Duration::from_secs(120);
const NUMBERS: &[(&str, u64)] = &[("restarts", 10), ("letters", 10_000)];

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("the system gives two threads");
    let asked = Asked::read(env::args().skip(1), NUMBERS);
    let done = asked
        .map_err(Error::from)
        .and_then(|asked| runtime.block_on(run(&asked)));
    runtime.shutdown_timeout(Duration::from_secs(5));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(asked: &Asked) -> Result<()> {
    let mut ran = restarts::run(asked).await?;
    ran += letters::run(asked).await?;
    if ran == 0 {
        return Err(format!("no line's name contains all of {:?}", asked.words()).into());
    }
    Ok(())
}

/// The lines of a table that were asked for.
fn chosen(asked: &Asked, brokers: &[Broker], title: impl Fn(Broker) -> String) -> Vec<Broker> {
    let asked_for = |broker: &&Broker| asked.includes(&title(**broker));
    brokers.iter().filter(asked_for).copied().collect()
}
