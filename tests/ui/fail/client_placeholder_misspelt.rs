// A slip in a name is one mistake, with what was meant.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

#[derive(Serialize, Deserialize)]
struct Order {
    id: u64,
}

#[service_client(service = "orders")]
trait Orders {
    #[get("/orders/{order_id}")]
    async fn order(&self, ordr_id: u64) -> Result<Order, CallError>;
}

fn main() {}
