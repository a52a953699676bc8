// The first wait is not longer than the longest.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

#[derive(Serialize, Deserialize)]
struct Order {
    id: u64,
}

#[service_client(service = "orders")]
trait Orders {
    #[get("/orders/{id}")]
    #[retry(first = "2s", max = "500ms")]
    async fn order(&self, id: u64) -> Result<Order, CallError>;
}

fn main() {}
