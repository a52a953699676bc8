// A message needs a topic.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

#[derive(Message, Serialize, Deserialize)]
struct OrderPlaced {
    order_id: String,
}

fn main() {}
