// A client has a name of its own.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

#[derive(Serialize, Deserialize)]
struct Order {
    id: u64,
}

#[service_client(service = "orders", client = Orders)]
trait Orders {
    #[get("/orders/{id}")]
    async fn order(&self, id: u64) -> Result<Order, CallError>;
}

fn main() {}
