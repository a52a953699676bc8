// The contract stands at the message, not at who handles it.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

interline::service!("billing");

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "orders.placed", key = order_id)]
struct OrderPlaced {
    order_id: String,
}

#[subscriber(ttl = "10s")]
async fn handle(order: OrderPlaced) {}

fn main() {}
