// The payload has no contract.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

interline::service!("billing");

#[derive(Serialize, Deserialize)]
struct Order {
    order_id: String,
}

#[subscriber]
async fn handle(order: Order) {}

fn main() {}
