// One derive is missing, and the message is used: still one error.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

interline::service!("billing");

#[derive(Message, Serialize)]
#[message(topic = "orders.placed", key = order_id)]
struct OrderPlaced {
    order_id: String,
}

#[subscriber(ordered_by = key)]
async fn handle(order: OrderPlaced) -> Option<OrderPlaced> {
    None
}

fn main() {}
