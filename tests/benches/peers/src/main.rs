//! The bench `messaging` with RustStream as a third column: the same tables, servers, messages, checks
//! and turns.
//!
//! ```sh
//! cargo run --release --manifest-path tests/benches/peers/Cargo.toml -- consume 512
//! ```

#[path = "../../messaging/consume.rs"]
mod consume;
#[path = "../../messaging/kafka.rs"]
mod kafka;
#[path = "../../shared/measured.rs"]
mod measured;
#[path = "../../messaging/on_redis.rs"]
mod on_redis;
#[path = "../../messaging/order.rs"]
mod order;
mod others;
#[path = "../../messaging/peers.rs"]
mod peers;
#[path = "../../messaging/program.rs"]
mod program;
#[path = "../../messaging/publish.rs"]
mod publish;
#[path = "../../messaging/pubsub.rs"]
mod pubsub;
#[path = "../../messaging/rabbitmq.rs"]
mod rabbitmq;
#[path = "../../shared/rounds.rs"]
mod rounds;
#[path = "../../messaging/sdk.rs"]
mod sdk;
#[path = "../../messaging/spans.rs"]
mod spans;
#[path = "../../messaging/streams.rs"]
mod streams;
#[path = "../../messaging/transport.rs"]
mod transport;
#[path = "../../messaging/wire.rs"]
mod wire;

use std::process::ExitCode;

pub(crate) use program::{LIMIT, in_a_task};

interline::service!("bench");

pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;
pub(crate) type Result<T> = std::result::Result<T, Error>;

fn main() -> ExitCode {
    program::main(others::bring)
}
