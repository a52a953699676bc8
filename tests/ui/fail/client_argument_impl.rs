// An argument has a type with a name.
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
    async fn order(&self, id: impl std::fmt::Display) -> Result<Order, CallError>;
}

fn main() {}
