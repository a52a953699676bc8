// The answer to a HEAD has no body.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::http::ByteStream;
use interline::prelude::*;

#[derive(Serialize, Deserialize)]
struct Order {
    id: u64,
}

#[service_client(service = "orders")]
trait Orders {
    #[head("/orders")]
    async fn orders(&self) -> Result<ByteStream, CallError>;
}

fn main() {}
