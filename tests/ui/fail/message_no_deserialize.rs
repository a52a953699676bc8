// One derive is missing: one error, on the type.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

#[derive(Message, Serialize)]
#[message(topic = "orders.placed")]
struct OrderPlaced {
    order_id: String,
}

fn main() {}
