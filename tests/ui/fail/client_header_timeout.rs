// The time that is left is sent with each attempt.
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
    async fn orders(&self, #[header("X-Timeout-Ms")] limit: u64) -> Result<Vec<Order>, CallError>;
}

fn main() {}
