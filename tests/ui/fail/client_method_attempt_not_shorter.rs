// A limit of an attempt is shorter than that of the call, also where the trait says it.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

#[derive(Serialize, Deserialize)]
struct Order {
    id: u64,
}

#[service_client(service = "orders", timeout = "2s")]
trait Orders {
    #[get("/orders/{id}")]
    #[attempt_timeout("3s")]
    async fn order(&self, id: u64) -> Result<Order, CallError>;
}

fn main() {}
