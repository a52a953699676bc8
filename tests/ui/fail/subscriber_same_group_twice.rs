// Two subscribers would take each other's messages.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

interline::service!("billing");

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "orders.placed", key = order_id)]
struct OrderPlaced {
    order_id: String,
}

#[subscriber]
async fn first(order: OrderPlaced) {}

#[subscriber]
async fn second(order: OrderPlaced) {}

fn main() {}
