// A second service might do it again.
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
    #[fallback(service = "orders-replica")]
    async fn place(&self, #[body] order: &Order) -> Result<(), CallError>;
}

fn main() {}
