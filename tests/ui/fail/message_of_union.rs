// Nobody can tell what is in a union.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

#[derive(Message)]
#[message(topic = "orders.placed")]
union OrderPlaced {
    number: u64,
    letters: [u8; 8],
}

fn main() {}
