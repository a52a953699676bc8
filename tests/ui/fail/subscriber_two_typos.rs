// All mistakes are reported together, each with a suggestion.
//~ 2 errors
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

interline::service!("billing");

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "orders.placed", key = order_id)]
struct OrderPlaced {
    order_id: String,
}

#[subscriber(concurency = 4, retry(atempts = 3))]
async fn handle(order: OrderPlaced) {}

fn main() {}
