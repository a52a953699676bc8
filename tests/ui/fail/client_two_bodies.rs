// A request has one body.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

#[derive(Serialize, Deserialize)]
struct Order {
    id: u64,
}

#[service_client(service = "orders")]
trait Orders {
    #[post("/orders")]
    async fn place(&self, #[body] order: &Order, #[body] note: &str) -> Result<(), CallError>;
}

fn main() {}
