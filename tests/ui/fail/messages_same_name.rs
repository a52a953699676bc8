// Two variants could not be told apart.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "orders.placed", key = order_id)]
struct OrderPlaced {
    order_id: String,
}

#[derive(Messages)]
enum Orders {
    Placed(OrderPlaced),
    Again(OrderPlaced),
}

fn main() {}
