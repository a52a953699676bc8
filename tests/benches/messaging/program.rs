//! The program: which tables there are, and which of them were asked for.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use interline_tests::asked::Asked;
use interline_tests::servers::Server;
use tokio::task::JoinSet;

use crate::Result;
use crate::consume::Consume;
use crate::kafka::Kafka;
use crate::peers::Bring;
use crate::publish::Publish;
use crate::pubsub::PubSub;
use crate::rabbitmq::RabbitMq;
use crate::rounds::{self, Table};
use crate::spans::Spans;
use crate::streams::Streams;
use crate::transport::{Load, Transport};

/// How long anything may take that has to happen.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);

/// How often the rows of a table take turns, and one in how many of the messages there is.
const NUMBERS: &[(&str, u64)] = &[("rounds", 5), ("part", 1)];
/// Sizes of messages in bytes, and how many of them are consumed and published.
const SIZES: &[(usize, u64)] = &[(512, 20_000), (16_384, 4_000)];
/// Publishes that are open at once.
const OPEN: &[usize] = &[1, 200];

/// Runs something where it competes with the other tasks, as in a service; it ends with whoever waits.
pub(crate) async fn in_a_task<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let mut task = JoinSet::new();
    task.spawn(work);
    task.join_next().await.ok_or("it was spawned")??
}

/// A broker, and how to get it.
#[derive(Clone, Copy, Debug)]
enum Broker {
    Classic,
    Quorum,
    Kafka,
    Streams,
    PubSub,
}

impl Broker {
    const ALL: [Self; 5] = [
        Self::Classic,
        Self::Quorum,
        Self::Kafka,
        Self::Streams,
        Self::PubSub,
    ];

    /// What stands in the titles of its tables, known before anything is started.
    fn name(self) -> &'static str {
        match self {
            Self::Classic => "RabbitMQ classic queue",
            Self::Quorum => "RabbitMQ quorum queue",
            Self::Kafka => "Kafka",
            Self::Streams => "Redis Streams",
            Self::PubSub => "Redis Pub/Sub",
        }
    }

    async fn open(self) -> Result<Arc<dyn Transport>> {
        let server = match self {
            Self::Classic | Self::Quorum => Server::RabbitMq,
            Self::Kafka => Server::Kafka,
            Self::Streams | Self::PubSub => Server::Redis,
        };
        server.available()?;
        Ok(match self {
            Self::Classic => Arc::new(RabbitMq::with_queues("classic").await?),
            Self::Quorum => Arc::new(RabbitMq::with_queues("quorum").await?),
            Self::Kafka => Arc::new(Kafka::open().await?),
            Self::Streams => Arc::new(Streams::open().await?),
            Self::PubSub => Arc::new(PubSub::open().await?),
        })
    }
}

/// All tables of a transport, with `part` of the messages.
fn tables(
    transport: &Arc<dyn Transport>,
    bring: Bring,
    spans: &Arc<Spans>,
    part: u64,
) -> Vec<Box<dyn Table>> {
    let mut tables: Vec<Box<dyn Table>> = Vec::new();
    for (size, count) in SIZES.iter().copied() {
        let count = count / part;
        let load = |open: usize| Load {
            // One after the other takes its time.
            count: if open == 1 {
                count / 10
            } else {
                count * transport.times(size)
            },
            size,
            open,
        };
        let parts = || (Arc::clone(transport), Arc::clone(spans));
        let (reads, spans) = parts();
        let peers = bring(&reads);
        tables.push(Box::new(Consume::new(reads, peers, spans, load(200))));
        for open in OPEN {
            let (writes, spans) = parts();
            tables.push(Box::new(Publish::new(writes, spans, load(*open))));
        }
    }
    tables
}

async fn run(asked: &Asked, bring: Bring) -> Result<()> {
    let spans = Arc::new(Spans::install());
    let mut ran = 0;
    let names = Broker::ALL.map(Broker::name);
    let rounds = usize::try_from(asked.number("rounds"))?;
    for broker in Broker::ALL {
        if !asked.may_include(broker.name(), &names) {
            continue;
        }
        let transport = broker.open().await?;
        let mut failed = Ok(());
        for table in tables(&transport, bring, &spans, asked.number("part")) {
            if asked.includes(&table.title()) {
                ran += 1;
                let told = rounds::run(&*table, rounds).await;
                failed = failed.and(told);
            }
        }
        failed.and(transport.end().await)?;
    }
    if ran == 0 {
        return Err(format!("no table's title contains all of {:?}", asked.words()).into());
    }
    Ok(())
}

/// Runs the tables that the command line asks for, with what else is brought to be compared.
pub(crate) fn main(bring: Bring) -> ExitCode {
    // Two workers, whatever the machine has: the same for the raw rows and for ours.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("the system gives two threads");
    let asked = Asked::read(std::env::args().skip(1), NUMBERS);
    let ran = asked
        .map_err(crate::Error::from)
        .and_then(|asked| runtime.block_on(run(&asked, bring)));
    runtime.shutdown_timeout(Duration::from_secs(5));
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
