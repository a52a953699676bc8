// A body can be written.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

#[derive(Serialize, Deserialize)]
struct Order {
    id: u64,
}

struct NewOrder;

#[service_client(service = "orders")]
trait Orders {
    #[post("/orders")]
    async fn place(&self, #[body] order: &NewOrder) -> Result<(), CallError>;
}

fn main() {}
