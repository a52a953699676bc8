// A result has its error.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

#[derive(Serialize, Deserialize)]
struct Order {
    id: u64,
}

type Loaded = Result<Order, CallError>;

#[service_client(service = "orders")]
trait Orders {
    #[get("/orders/{id}")]
    async fn order(&self, id: u64) -> Loaded;
}

fn main() {}
