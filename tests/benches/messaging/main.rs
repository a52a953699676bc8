//! The SDK's loops against those of a raw client: same server, same connection settings, as much in
//! flight, taking turns in one process.
//!
//! ```sh
//! cargo bench -p interline-tests --bench messaging                       # everything, 5 rounds
//! cargo bench -p interline-tests --bench messaging -- consume classic 512 --rounds 9
//! cargo bench -p interline-tests --bench messaging -- kafka --rounds 1 --part 20
//! ```
//!
//! Words choose the tables whose titles contain all of them. How to read the tables stands in
//! `docs/benchmarks.md`.

mod consume;
mod kafka;
#[path = "../shared/measured.rs"]
mod measured;
mod on_redis;
mod order;
mod peers;
mod program;
mod publish;
mod pubsub;
mod rabbitmq;
#[path = "../shared/rounds.rs"]
mod rounds;
mod sdk;
mod spans;
mod streams;
mod transport;
mod wire;

use std::process::ExitCode;

pub(crate) use program::{LIMIT, in_a_task};

interline::service!("bench");

pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;
pub(crate) type Result<T> = std::result::Result<T, Error>;

fn main() -> ExitCode {
    program::main(|_| Vec::new())
}
