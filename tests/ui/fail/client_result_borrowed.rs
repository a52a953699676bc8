// A result is owned.
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
    async fn note(&self, id: u64) -> Result<&str, CallError>;
}

fn main() {}
