// A Protocol Buffers payload must be one.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

interline::service!("billing");

#[derive(Serialize, Deserialize)]
struct Order {
    order_id: String,
}

#[subscriber(topic = "orders", on_unknown = skip, codec = protobuf)]
async fn handle(order: Order) {}

fn main() {}
