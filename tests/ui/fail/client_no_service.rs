// A client calls a service.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

#[derive(Serialize, Deserialize)]
struct Order {
    id: u64,
}

#[service_client(base = "/api")]
trait Orders {
    #[get("/orders/{id}")]
    async fn order(&self, id: u64) -> Result<Order, CallError>;
}

fn main() {}
