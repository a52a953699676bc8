// A time to live is a duration.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "orders.placed", ttl = "2 fortnights")]
struct OrderPlaced {
    order_id: String,
}

fn main() {}
