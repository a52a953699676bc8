// A Protocol Buffers message must be one.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

#[derive(Message)]
#[message(topic = "orders.placed", codec = protobuf)]
struct OrderPlaced {
    order_id: String,
}

fn main() {}
