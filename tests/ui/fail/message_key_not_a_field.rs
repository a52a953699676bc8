// The key is a field.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "orders.placed", key = order)]
struct OrderPlaced {
    order_id: String,
}

fn main() {}
