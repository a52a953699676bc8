// Every option, and every form of payload, argument and result.
#![deny(warnings)]

use interline::prelude::*;
use interline::{Failure, Messages};

interline::service!("everything");

const NOTED: &str = "notes.taken";

#[derive(Clone, Message, Serialize, Deserialize)]
#[message(topic = "orders.{region}.placed", key = order_id, id = order_id, name = "order",
          codec = "reversed", subscribers = optional)]
pub struct Placed {
    pub order_id: u64,
    pub region: String,
}

#[derive(Message, Serialize, Deserialize)]
#[message(topic = NOTED, key = 0)]
pub struct Noted(String);

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "states")]
pub enum Status {
    Up,
    Down,
}

#[derive(Messages)]
pub enum Any {
    Placed(Placed),
    Noted(Noted),
}

#[derive(Debug, Failure)]
#[fate(retry(after = wait))]
pub struct Busy {
    wait: std::time::Duration,
}

impl std::fmt::Display for Busy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("busy")
    }
}

impl std::error::Error for Busy {}

#[derive(Debug, Failure)]
pub enum Impossible {}

impl std::fmt::Display for Impossible {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {}
    }
}

impl std::error::Error for Impossible {}

#[subscriber(
    name = "first.one", broker = "main", group = "g1", concurrency = 4_096, ordered_by = key,
    timeout = "1m30s", retry(attempts = 1, first = "1s", max = "1s", factor = 1), dead_letter = false,
    ack = after, on_unknown = skip, start = earliest, rate = "100/s", topology = verify, codec = msgpack,
    rabbitmq(queue = "q", queue_kind = quorum, exchange = "e", exchange_kind = headers, binding = "#",
             prefetch = 10, binding_arguments("x-match" = "all", "n" = -1)),
    redis(stream = "s", group = "g"), delivery = at_least_once,
)]
async fn one(placed: Placed) -> Result<Placed, Busy> {
    Ok(placed)
}

#[subscriber(group = each_instance, ordered_by = key_in_process, retry = none)]
async fn two(any: Any, out: Out<Placed>, cancel: Cancel, headers: Headers) -> Option<Noted> {
    drop((out, cancel, headers));
    match any {
        Any::Placed(_) => None,
        Any::Noted(noted) => Some(noted),
    }
}

// Another group of its own, for the same messages.
#[subscriber(group = each_instance)]
async fn three(any: Any) -> (Vec<Placed>, Publish<Noted>) {
    drop(any);
    (Vec::new(), Publish::new(Noted(String::new())))
}

#[subscriber(ack = manual)]
async fn four(status: &Status, settle: Settle) {
    match status {
        Status::Up | Status::Down => settle.done(),
    }
}

#[subscriber(ack = on_receive, retry(attempts = 3, first = "50ms"), group = "g5")]
async fn five(status: Option<Status>) -> Result<(), Impossible> {
    drop(status);
    Ok(())
}

#[subscriber(topic = "foreign.{zone}", on_unknown = dead_letter)]
async fn six(raw: Raw, #[segment("zone")] number: u16, #[segment] zone: Option<String>) {
    drop((raw, number, zone));
}

#[subscriber(topic = "foreign.protobuf", on_unknown = skip, codec = protobuf)]
async fn seven(number: u64) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    number.to_string().parse::<u8>()?;
    Ok(())
}

#[subscriber(batch(max = 200, wait = "50ms"), group = "g8")]
async fn eight(mut many: Batch<Option<Placed>>) -> BatchOutcome {
    let outcome = many.all_done();
    many = Batch::new([]);
    drop(many);
    outcome
}

fn main() {}
