//! A broker goes and comes back, again and again, while messages are published without an end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use interline::launch::Running;
use interline::prelude::*;
use interline_tests::asked::Asked;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::book::Book;
use crate::broker::{Broker, Place};
use crate::{LIMIT, Result, chosen};

/// How many publish at once, and how long each waits between two: about 1 000 messages in a second.
const LANES: usize = 4;
const PACE: Duration = Duration::from_millis(4);
/// How long the handler works on a message.
const WORK: Duration = Duration::from_millis(5);
/// For how long everything goes well before the next restart.
const STEADY: Duration = Duration::from_secs(1);

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "bench.beats")]
struct Beat {
    n: u64,
    note: String,
}

#[subscriber]
async fn count(beat: Beat, book: State<Arc<Book>>) {
    sleep(WORK).await;
    book.handle(beat.n);
}

/// How a broker goes.
#[derive(Debug, Clone, Copy)]
enum Exit {
    Killed,
    Stopped,
}

impl Exit {
    const ALL: [Self; 2] = [Self::Killed, Self::Stopped];

    fn name(self) -> &'static str {
        match self {
            Self::Killed => "kill -9",
            Self::Stopped => "SIGTERM",
        }
    }
}

fn title(broker: Broker, exit: Exit) -> String {
    format!("restart, {}, {}", broker.name(), exit.name())
}

/// Prints the table of what was asked for; how many lines it has.
pub(crate) async fn run(asked: &Asked) -> Result<usize> {
    let mut lines = 0;
    for exit in Exit::ALL {
        for broker in chosen(asked, &Broker::SERVERS, |broker| title(broker, exit)) {
            if lines == 0 {
                println!(
                    "### Restarts of the server under about {} messages/s, a handler of {WORK:?}\n",
                    LANES as u128 * 1_000 / PACE.as_millis()
                );
                println!(
                    "| broker | restarts | first message after the port opens, median | min-max \
                     | handled | handled again, for each restart |"
                );
                println!("| --- | ---: | ---: | ---: | ---: | ---: |");
            }
            lines += 1;
            measure(broker, exit, asked.number("restarts")).await?;
        }
    }
    if lines > 0 {
        println!("\nEvery confirmed message was handled.\n");
    }
    Ok(lines)
}

async fn measure(broker: Broker, exit: Exit, times: u64) -> Result<()> {
    let place = broker.start().await?;
    let book = Arc::new(Book::default());
    let app = App::new(place.config())
        .named_only()
        .state(Arc::clone(&book))
        .register::<count>();
    let service = app.launch().await?;
    service.ready(LIMIT).await?;
    place.is_safe().await?;
    let publishing = App::new(place.config()).publish_only().launch().await?;
    publishing.ready(LIMIT).await?;
    let load = Load::start(&publishing, &book);
    let mut back = Vec::new();
    for _ in 0..times {
        back.push(restart(&place, exit, &book).await?);
    }
    load.stop().await?;
    book.complete().await?;
    // What was out when the broker went comes again later than what is new.
    sleep(STEADY).await;
    publishing.stop_within(LIMIT).await;
    service.stop_within(LIMIT).await;
    back.sort();
    let (handled, again) = book.sums();
    let [least, median, most] = [0, back.len() / 2, back.len() - 1].map(|at| back[at].as_millis());
    #[expect(clippy::cast_precision_loss, reason = "counts here are far below 2^52")]
    let again = again as f64 / times as f64;
    println!(
        "| {}, {} | {times} | {median} ms | {least}-{most} ms | {handled} | {again:.1} |",
        broker.name(),
        exit.name()
    );
    Ok(())
}

/// One restart: how long after the port opens a message is handled.
async fn restart(place: &Place, exit: Exit, book: &Book) -> Result<Duration> {
    book.next(Instant::now()).await?;
    sleep(STEADY).await;
    let server = place.server()?;
    match exit {
        Exit::Killed => server.kill().await?,
        Exit::Stopped => server.terminate().await?,
    }
    server.restart_without_waiting().await?;
    let opened = place.opened().await?;
    // What was in the service's hands when the broker went was finished long before.
    let handled = book.next(opened).await?;
    server.wait_ready(LIMIT).await?;
    Ok(handled - opened)
}

/// Messages that are being published.
struct Load {
    stop: Arc<AtomicBool>,
    lanes: JoinSet<()>,
}

impl Load {
    fn start(publishing: &Running, book: &Arc<Book>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let next = Arc::new(AtomicU64::new(0));
        let mut lanes = JoinSet::new();
        for _ in 0..LANES {
            let (publisher, book) = (publishing.publisher(), Arc::clone(book));
            let (stop, next) = (Arc::clone(&stop), Arc::clone(&next));
            lanes.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    let note = "x".repeat(200);
                    // One whose outcome is unknown may be handled or not; it is not counted on.
                    if publisher.publish(&Beat { n, note }).await.is_ok() {
                        book.confirm(n);
                    }
                    sleep(PACE).await;
                }
            });
        }
        Self { stop, lanes }
    }

    async fn stop(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        tokio::time::timeout(LIMIT, self.lanes.join_all()).await?;
        Ok(())
    }
}
