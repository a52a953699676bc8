// A value of the query can be written.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

#[derive(Serialize, Deserialize)]
struct Order {
    id: u64,
}

struct Filter;

#[service_client(service = "orders")]
trait Orders {
    #[get("/orders")]
    async fn orders(&self, #[query] filter: Filter) -> Result<Vec<Order>, CallError>;
}

fn main() {}
