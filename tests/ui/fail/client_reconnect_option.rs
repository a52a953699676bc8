// A stream that is asked for again has no options.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::http::EventStream;
use interline::prelude::*;

#[derive(Serialize, Deserialize)]
struct Order {
    id: u64,
}

#[service_client(service = "orders")]
trait Orders {
    #[get("/orders/events")]
    #[reconnect(after = "1s")]
    async fn events(&self) -> Result<EventStream, CallError>;
}

fn main() {}
