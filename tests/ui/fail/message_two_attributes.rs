// An option stands once, in one attribute or in two.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "orders.placed", key = order_id)]
#[message(topic = "orders.put")]
struct OrderPlaced {
    order_id: String,
}

fn main() {}
