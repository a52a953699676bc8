// What is done once for each request is not asked for again.
//~ 1 error
#![allow(dead_code, unused_variables, unused_imports)]

use interline::http::{BodyStream, EventStream};
use interline::prelude::*;

#[derive(Serialize, Deserialize)]
struct Order {
    id: u64,
}

#[service_client(service = "orders")]
trait Orders {
    #[post("/orders")]
    #[reconnect]
    async fn place(&self, #[body] order: &Order) -> Result<EventStream, CallError>;
}

fn main() {}
