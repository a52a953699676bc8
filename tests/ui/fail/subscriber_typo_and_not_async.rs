// A mistake in the options does not hide one in the function.
//~ 2 errors
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

interline::service!("billing");

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "orders.placed", key = order_id)]
struct OrderPlaced {
    order_id: String,
}

#[subscriber(tiemout = "2s")]
fn handle(order: OrderPlaced) {}

fn main() {}
