// The first wait is not longer than the longest, also where the trait says it.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

#[derive(Serialize, Deserialize)]
struct Order {
    id: u64,
}

#[service_client(service = "orders", retry(max = "1s"))]
trait Orders {
    #[get("/orders/{id}")]
    #[retry(first = "2s")]
    async fn order(&self, id: u64) -> Result<Order, CallError>;
}

fn main() {}
