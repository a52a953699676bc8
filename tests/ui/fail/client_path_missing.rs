// A request has a path.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

#[derive(Serialize, Deserialize)]
struct Order {
    id: u64,
}

#[service_client(service = "orders")]
trait Orders {
    #[get]
    async fn orders(&self) -> Result<Vec<Order>, CallError>;
}

fn main() {}
