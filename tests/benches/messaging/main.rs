//! The SDK's loops against those of a raw client: same server, same connection settings, as much in
//! flight, taking turns in one process.
//!
//! ```sh
//! cargo bench -p interline-tests --bench messaging                       # everything, 5 rounds
//! cargo bench -p interline-tests --bench messaging -- consume classic 512 --rounds 9
//! ```
//!
//! Words choose the tables whose titles contain all of them. How to read the tables stands in
//! `docs/benchmarks.md`.

mod consume;
#[path = "../shared/measured.rs"]
mod measured;
mod order;
mod publish;
mod rabbitmq;
#[path = "../shared/rounds.rs"]
mod rounds;
mod sdk;
mod spans;
mod transport;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use consume::Consume;
use interline_tests::servers::Server;
use publish::Publish;
use rabbitmq::RabbitMq;
use rounds::Table;
use spans::Spans;
use transport::{Load, Transport};

interline::service!("bench");

pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;
pub(crate) type Result<T> = std::result::Result<T, Error>;

/// How long anything may take that has to happen.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);

const ROUNDS: usize = 5;
/// Sizes of messages in bytes, and how many of them are consumed and published.
const SIZES: &[(usize, u64)] = &[(512, 20_000), (16_384, 4_000)];
/// Publishes that are open at once.
const OPEN: &[usize] = &[1, 200];

/// Runs something where it competes with the other tasks, as in a service.
pub(crate) async fn in_a_task<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    tokio::spawn(work).await?
}

struct Asked {
    rounds: usize,
    words: Vec<String>,
}

impl Asked {
    /// Reads the command line; what cargo adds is left out.
    fn read(arguments: impl Iterator<Item = String>) -> Result<Self> {
        let mut asked = Self {
            rounds: ROUNDS,
            words: Vec::new(),
        };
        let mut arguments = arguments.filter(|argument| argument != "--bench");
        while let Some(argument) = arguments.next() {
            match argument.strip_prefix("--") {
                Some("rounds") => {
                    let rounds = arguments.next().unwrap_or_default();
                    asked.rounds = rounds
                        .parse()
                        .map_err(|_| format!("--rounds takes a number, not `{rounds}`"))?;
                }
                Some(_) => {
                    return Err(format!("unknown option `{argument}`; there is --rounds N").into());
                }
                None => asked.words.push(argument),
            }
        }
        Ok(asked)
    }

    fn includes(&self, title: &str) -> bool {
        let title = title.to_lowercase();
        let mut words = self.words.iter();
        words.all(|word| title.contains(&word.to_lowercase()))
    }
}

/// All tables of a transport.
fn tables(transport: &Arc<dyn Transport>, spans: &Arc<Spans>) -> Vec<Box<dyn Table>> {
    let mut tables: Vec<Box<dyn Table>> = Vec::new();
    for (size, count) in SIZES.iter().copied() {
        let load = |open: usize| Load {
            // One after the other takes its time.
            count: if open == 1 { count / 10 } else { count },
            size,
            open,
        };
        let parts = || (Arc::clone(transport), Arc::clone(spans));
        let (transport, spans) = parts();
        tables.push(Box::new(Consume::new(transport, spans, load(200))));
        for open in OPEN {
            let (transport, spans) = parts();
            tables.push(Box::new(Publish::new(transport, spans, load(*open))));
        }
    }
    tables
}

async fn run(asked: &Asked) -> Result<()> {
    let spans = Arc::new(Spans::install());
    let mut ran = 0;
    Server::RabbitMq.available()?;
    for kind in ["classic", "quorum"] {
        let rabbitmq = Arc::new(RabbitMq::with_queues(kind).await?);
        let transport: Arc<dyn Transport> = Arc::clone(&rabbitmq) as _;
        for table in tables(&transport, &spans) {
            if asked.includes(&table.title()) {
                ran += 1;
                rounds::run(&*table, asked.rounds).await?;
            }
        }
        rabbitmq.end().await?;
    }
    if ran == 0 {
        return Err(format!("no table's title contains all of {:?}", asked.words).into());
    }
    Ok(())
}

fn main() -> ExitCode {
    // Two workers, whatever the machine has: the same for the raw rows and for ours.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("the system gives two threads");
    let ran = Asked::read(std::env::args().skip(1)).and_then(|asked| runtime.block_on(run(&asked)));
    runtime.shutdown_timeout(Duration::from_secs(5));
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
