// A stream is given away.
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
    async fn place(&self, #[body] order: &BodyStream) -> Result<(), CallError>;
}

fn main() {}
