// Attempts count themselves.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

#[derive(Serialize, Deserialize)]
struct Order {
    id: u64,
}

#[service_client(service = "orders")]
trait Orders {
    #[get("/orders")]
    async fn orders(&self, #[header("x-attempt")] attempt: u32) -> Result<Vec<Order>, CallError>;
}

fn main() {}
