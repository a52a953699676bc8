// A stream is sent once.
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
    #[put("/orders")]
    #[reconnect]
    async fn place(&self, #[body] orders: BodyStream) -> Result<EventStream, CallError>;
}

fn main() {}
