// Two typos, reported together.
//~ 2 errors
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

#[derive(Message, Serialize, Deserialize)]
#[message(topc = "orders.placed", topic = "orders.placed", versoin = 2)]
struct OrderPlaced {
    order_id: String,
}

fn main() {}
