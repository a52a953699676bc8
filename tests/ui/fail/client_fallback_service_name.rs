// The service that stands in has a name.
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
    #[fallback(service = "orders replica")]
    async fn order(&self, id: u64) -> Result<Order, CallError>;
}

fn main() {}
