// An enum holds several messages, a struct does not.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "orders.placed", key = order_id)]
struct OrderPlaced {
    order_id: String,
}

#[derive(Messages)]
struct Orders(OrderPlaced);

fn main() {}
