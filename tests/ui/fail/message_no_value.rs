// An option needs its value.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "orders.placed", key)]
struct OrderPlaced {
    order_id: String,
}

fn main() {}
