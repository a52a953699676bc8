// An idempotent method has no options.
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
    #[idempotent(key = "id")]
    async fn place(&self, #[body] order: &Order) -> Result<(), CallError>;
}

fn main() {}
