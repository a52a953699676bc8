// A single message is no batch.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

interline::service!("billing");

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "orders.placed", key = order_id)]
struct OrderPlaced {
    order_id: String,
}

#[subscriber(batch(max = 10, wait = "1s"))]
async fn handle(order: OrderPlaced) {}

fn main() {}
