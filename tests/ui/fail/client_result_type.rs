// A result can be read.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

#[derive(Serialize, Deserialize)]
struct Order {
    id: u64,
}

struct Placed;

#[service_client(service = "orders")]
trait Orders {
    #[get("/orders/{id}")]
    async fn order(&self, id: u64) -> Result<Placed, CallError>;
}

fn main() {}
