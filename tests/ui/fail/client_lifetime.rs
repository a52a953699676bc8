// A method of a client has no lifetimes of its own.
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
    async fn orders<'a>(&self, #[query] tag: &'a str) -> Result<Vec<Order>, CallError>;
}

fn main() {}
