// A second request is sent while the first may still be answered.
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
    #[timeout("1s")]
    #[retry(hedge = "1s")]
    async fn order(&self, id: u64) -> Result<Order, CallError>;
}

fn main() {}
