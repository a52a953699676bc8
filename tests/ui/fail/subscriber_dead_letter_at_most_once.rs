// What may be lost is not kept.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

interline::service!("billing");

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "orders.placed", key = order_id)]
struct OrderPlaced {
    order_id: String,
}

#[subscriber(delivery = at_most_once, dead_letter = true)]
async fn handle(order: OrderPlaced) {}

fn main() {}
