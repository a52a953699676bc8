// A contract is one type.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "orders.placed")]
struct Placed<T> {
    order: T,
}

fn main() {}
