//! Dead letters are sent back to their subscription.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use interline::messaging::Redrive;
use interline::prelude::*;
use interline_tests::asked::Asked;
use tokio::time::Instant;

use crate::book::Book;
use crate::broker::Broker;
use crate::{LIMIT, Result, chosen};

/// Publishes that are open at once.
const OPEN: usize = 200;

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "bench.invoices")]
struct Invoice {
    n: u64,
    note: String,
}

struct Desk {
    closed: AtomicBool,
    refused: Book,
    settled: Book,
}

#[derive(Debug, Failure)]
#[fate(dead_letter)]
struct Closed;

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the desk is closed")
    }
}

impl std::error::Error for Closed {}

#[subscriber]
async fn settle(invoice: Invoice, desk: State<Arc<Desk>>) -> std::result::Result<(), Closed> {
    if desk.closed.load(Ordering::Acquire) {
        desk.refused.handle(invoice.n);
        return Err(Closed);
    }
    desk.settled.handle(invoice.n);
    Ok(())
}

/// Prints the table of what was asked for; how many lines it has.
pub(crate) async fn run(asked: &Asked) -> Result<usize> {
    let count = asked.number("letters");
    let title = |broker: Broker| format!("dead letters, {}", broker.name());
    let brokers = chosen(asked, &Broker::ALL, title);
    if brokers.is_empty() {
        return Ok(0);
    }
    println!("### {count} dead letters of 300 bytes sent back\n");
    println!("| broker | sent back, /s | sent back and handled, /s |");
    println!("| --- | ---: | ---: |");
    for broker in &brokers {
        measure(*broker, count).await?;
    }
    println!("\nEach was handled once.\n");
    Ok(brokers.len())
}

async fn measure(broker: Broker, count: u64) -> Result<()> {
    let place = broker.start().await?;
    let desk = Arc::new(Desk {
        closed: AtomicBool::new(true),
        refused: Book::default(),
        settled: Book::default(),
    });
    let app = App::new(place.config())
        .named_only()
        .state(Arc::clone(&desk))
        .register::<settle>();
    let running = app.launch().await?;
    running.ready(LIMIT).await?;
    let letters = running.manager().dead_letters("settle")?;
    let letters = letters.first().ok_or("the handler keeps dead letters")?;
    let publisher = running.publisher();
    stream::iter(0..count)
        .map(|n| {
            let (publisher, desk) = (&publisher, &desk);
            async move {
                let note = "x".repeat(270);
                publisher.publish(&Invoice { n, note }).await?;
                desk.refused.confirm(n);
                desk.settled.confirm(n);
                Ok::<_, crate::Error>(())
            }
        })
        .buffer_unordered(OPEN)
        .try_for_each(|()| async { Ok(()) })
        .await?;
    desk.refused.complete().await?;
    desk.closed.store(false, Ordering::Release);
    let begun = Instant::now();
    let (mut moved, all) = (0, usize::try_from(count)?);
    while moved < all {
        // The last ones may still be on their way there.
        moved += letters.redrive(&Redrive::new().limit(all - moved)).await?;
        if begun.elapsed() > LIMIT {
            return Err(format!("{moved} of {all} sent back within {LIMIT:?}").into());
        }
    }
    let sent_back = begun.elapsed();
    desk.settled.complete().await?;
    let handled = begun.elapsed();
    running.stop_within(LIMIT).await;
    let sums = desk.settled.sums();
    if sums != (all, 0) {
        return Err(format!("{all} sent back, then handled, and again: {sums:?}").into());
    }
    #[expect(clippy::cast_precision_loss, reason = "counts here are far below 2^52")]
    let rate = |took: Duration| count as f64 / took.as_secs_f64();
    println!(
        "| {} | {:.0} | {:.0} |",
        broker.name(),
        rate(sent_back),
        rate(handled)
    );
    Ok(())
}
