// What is read while it comes is not kept.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::http::ByteStream;
use interline::prelude::*;

#[service_client(service = "orders")]
trait Orders {
    #[get("/orders")]
    #[cache(ttl = "30s")]
    async fn orders(&self) -> Result<ByteStream, CallError>;
}

fn main() {}
