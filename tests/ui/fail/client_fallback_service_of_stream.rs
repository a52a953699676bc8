// A stream is not sent to a second service.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::http::BodyStream;
use interline::prelude::*;

#[derive(Serialize, Deserialize)]
struct Order {
    id: u64,
}

#[service_client(service = "orders")]
trait Orders {
    #[put("/orders")]
    #[fallback(service = "orders-replica")]
    async fn replace(&self, #[body] orders: BodyStream) -> Result<(), CallError>;
}

fn main() {}
