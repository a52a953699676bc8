// A version is a number, not a text.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "orders.placed", version = "2")]
struct OrderPlaced {
    order_id: String,
}

fn main() {}
