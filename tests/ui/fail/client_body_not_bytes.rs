// What is sent as bytes is bytes.
//~ 1 error
#![allow(dead_code, unused_variables, unused_imports)]

use interline::http::{BodyStream, EventStream};
use interline::prelude::*;

#[derive(Serialize, Deserialize)]
struct Order {
    id: u64,
}

#[service_client(service = "orders")]
trait Orders {
    #[post("/orders")]
    async fn place(&self, #[body(bytes)] order: &Order) -> Result<(), CallError>;
}

fn main() {}
