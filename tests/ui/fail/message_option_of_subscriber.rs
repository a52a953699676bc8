// How it is handled is for who handles it to say.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "orders.placed", concurrency = 4)]
struct OrderPlaced {
    order_id: String,
}

fn main() {}
