// A placeholder is a field.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "orders.{regoin}")]
struct OrderPlaced {
    region: String,
}

fn main() {}
