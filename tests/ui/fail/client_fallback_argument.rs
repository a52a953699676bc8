// A fallback takes arguments of its method.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

#[derive(Serialize, Deserialize)]
struct Order {
    id: u64,
}

async fn no_order(error: CallError, id: &u64) -> Result<Order, CallError> {
    Err(error)
}

#[service_client(service = "orders")]
trait Orders {
    #[get("/orders/{id}")]
    #[fallback(no_order(idd))]
    async fn order(&self, id: u64) -> Result<Order, CallError>;
}

fn main() {}
