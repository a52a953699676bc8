//! The service that crash tests kill: it notes each attempt at a message in a ledger and publishes
//! one message for each that it handled. Its environment says how:
//!
//! | variable | |
//! |---|---|
//! | `LEDGER_FILE` | where the ledger is |
//! | `LEDGER_DELAY_MS` | how long the handler works on a message before it notes it, 0 unless set |
//! | `LEDGER_SLOW_ONCE_MS` | how much longer it works on the first message of its life |
//! | `LEDGER_FAILURES` | `1`: some attempts fail, see `Decision::by_pattern` |
//! | `LEDGER_HANG` | where it hangs with the first message of its life: `handler`, before it notes it; `effect`, before it publishes; `confirm`, before it acknowledges |
//! | `INTERLINE__RUN__ONLY` | `record`, or `record_in_order` for order by lane |
//!
//! Brokers and subscribers are configured as in any service. It ends with its standard input, so
//! that it does not outlive a test that was killed.

use std::fmt;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use interline::handling::{BoxFuture, Meta, PublishError, PublishMiddleware, PublishNext, Receipt};
use interline::message::Outgoing;
use interline::prelude::*;
use interline_tests::ledger::{Decision, Entry, Input, LedgerWriter, Output};

interline::service!("ledger");

struct Book {
    ledger: LedgerWriter,
    delay: Duration,
    slow_once: Duration,
    was_slow: AtomicBool,
    fails: bool,
    hang: Hang,
}

/// A place at which the service stops for ever, to be killed there.
#[derive(Clone)]
struct Hang {
    place: Option<String>,
    done: Arc<AtomicBool>,
}

impl Hang {
    fn from_environment() -> Self {
        Self {
            place: std::env::var("LEDGER_HANG").ok(),
            done: Arc::default(),
        }
    }

    async fn at(&self, place: &str) {
        if self.place.as_deref() == Some(place) && !self.done.swap(true, Ordering::Relaxed) {
            tracing::info!("hangs at {place}");
            std::future::pending::<()>().await;
        }
    }
}

impl PublishMiddleware for Hang {
    fn publish<'a>(
        &'a self,
        outgoing: Outgoing,
        next: PublishNext<'a>,
    ) -> BoxFuture<'a, Result<Receipt, PublishError>> {
        Box::pin(async move {
            self.at("effect").await;
            let receipt = next.run(outgoing).await?;
            self.at("confirm").await;
            Ok(receipt)
        })
    }
}

#[derive(Debug, Failure)]
enum Refused {
    #[fate(retry)]
    Again,
    #[fate(dead_letter)]
    Never,
    #[fate(retry)]
    Ledger(std::io::Error),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Again => f.write_str("not this time"),
            Self::Never => f.write_str("never"),
            Self::Ledger(error) => write!(f, "the ledger: {error}"),
        }
    }
}

impl std::error::Error for Refused {}

#[subscriber]
async fn record(input: Input, meta: Meta, book: State<Book>) -> Result<Output, Refused> {
    book.enter(&input, &meta).await
}

#[subscriber(group = "ordered", ordered_by = key)]
async fn record_in_order(input: Input, meta: Meta, book: State<Book>) -> Result<Output, Refused> {
    book.enter(&input, &meta).await
}

impl Book {
    fn from_environment(hang: Hang) -> Self {
        let text = |name: &str| std::env::var(name).ok();
        let millis = |name: &str| {
            let number =
                text(name).map_or(0, |text| text.parse().expect("a number of milliseconds"));
            Duration::from_millis(number)
        };
        let path = text("LEDGER_FILE").expect("LEDGER_FILE says where the ledger is");
        Self {
            ledger: LedgerWriter::open(path).expect("the ledger can be opened"),
            delay: millis("LEDGER_DELAY_MS"),
            slow_once: millis("LEDGER_SLOW_ONCE_MS"),
            was_slow: AtomicBool::new(false),
            fails: text("LEDGER_FAILURES").as_deref() == Some("1"),
            hang,
        }
    }

    async fn enter(&self, input: &Input, meta: &Meta) -> Result<Output, Refused> {
        let mut delay = self.delay;
        if !self.slow_once.is_zero() && !self.was_slow.swap(true, Ordering::Relaxed) {
            delay += self.slow_once;
        }
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        self.hang.at("handler").await;
        let decision = if self.fails {
            Decision::by_pattern(input.n, meta.attempt())
        } else {
            Decision::Done
        };
        let entry = Entry {
            n: input.n,
            lane: input.lane,
            attempt: meta.attempt(),
            id: meta.id().to_string(),
            decision,
        };
        self.ledger.write(&entry).map_err(Refused::Ledger)?;
        match decision {
            Decision::Done => Ok(Output { n: input.n }),
            Decision::Again => Err(Refused::Again),
            Decision::Never => Err(Refused::Never),
        }
    }
}

#[tokio::main(worker_threads = 2)]
async fn main() -> interline::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .init();
    std::thread::spawn(|| {
        // Whether it ends or fails, nobody is there any more.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(99);
    });
    let hang = Hang::from_environment();
    let app = App::new(Config::load()?)
        .state(Book::from_environment(hang.clone()))
        .publish_middleware(hang)
        .on_ready(|_| async { tracing::info!("the ledger is open") });
    runtime::start(app).await
}
