// A function is one subscriber.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

interline::service!("billing");

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "orders.placed", key = order_id)]
struct OrderPlaced {
    order_id: String,
}

#[subscriber(group = "a")]
#[subscriber(group = "b")]
async fn handle(order: OrderPlaced) {}

fn main() {}
