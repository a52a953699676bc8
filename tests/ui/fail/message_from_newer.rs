// An older version is older.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "orders.placed", version = 2, from(2 = Self))]
struct OrderPlaced {
    order_id: String,
}

fn main() {}
