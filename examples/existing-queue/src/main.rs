//! Foreign JSON from a RabbitMQ queue that somebody else owns: nothing is declared, no permission to
//! configure is needed, and no header of ours is expected.
//!
//! ```text
//! INTERLINE__BROKERS__MAIN__URL=amqp://user:password@host/vhost cargo run -p existing-queue
//! ```

use interline::prelude::*;

interline::service!("invoice-reader");

/// A payload as the other side writes it. No contract of ours: just what serde can read.
#[derive(Debug, Deserialize)]
struct Invoice {
    number: String,
    #[serde(default)]
    lines: Vec<String>,
}

#[subscriber(
    topic = "legacy.invoices",
    on_unknown = dead_letter,
    topology = verify,
    rabbitmq(queue = "legacy-invoices", exchange = "")
)]
async fn read(invoice: Invoice, #[header("x-branch")] branch: Option<String>) {
    let branch = branch.as_deref().unwrap_or("head office");
    println!(
        "invoice {} of {branch} with {} lines",
        invoice.number,
        invoice.lines.len()
    );
}

#[tokio::main]
async fn main() -> interline::Result<()> {
    runtime::start(Config::load()?).await
}
