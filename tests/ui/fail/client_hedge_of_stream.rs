// A stream is not sent in two requests.
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
    #[retry(hedge = "80ms")]
    async fn replace(&self, #[body] orders: BodyStream) -> Result<(), CallError>;
}

fn main() {}
