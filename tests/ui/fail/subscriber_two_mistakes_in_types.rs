// Two wrong types are two errors, each on its type.
//~ 2 errors
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

interline::service!("billing");

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "orders.placed", key = order_id)]
struct OrderPlaced {
    order_id: String,
}

struct Bank;

#[subscriber]
async fn handle(order: OrderPlaced, bank: Bank) -> u32 {
    1
}

fn main() {}
