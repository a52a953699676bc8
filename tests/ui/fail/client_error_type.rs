// An error of a method can hold that of the call.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

#[derive(Serialize, Deserialize)]
struct Order {
    id: u64,
}

#[derive(Debug)]
struct Refused;

#[service_client(service = "orders")]
trait Orders {
    #[get("/orders/{id}")]
    async fn order(&self, id: u64) -> Result<Order, Refused>;
}

fn main() {}
