// A path is a text.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

#[derive(Serialize, Deserialize)]
struct Order {
    id: u64,
}

const ORDERS: &str = "/orders";

#[service_client(service = "orders")]
trait Orders {
    #[get(ORDERS)]
    async fn orders(&self) -> Result<Vec<Order>, CallError>;
}

fn main() {}
