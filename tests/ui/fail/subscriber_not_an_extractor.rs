// An argument of a type that nobody can fill in.
//~ 1 error
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
async fn handle(order: OrderPlaced, bank: Bank, meta: Meta) {}

fn main() {}
