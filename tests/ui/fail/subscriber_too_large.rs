// More than the runtime can hold.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

interline::service!("billing");

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "orders.placed", key = order_id)]
struct OrderPlaced {
    order_id: String,
}

#[subscriber(concurrency = 99999999999999999999)]
async fn handle(order: OrderPlaced) {}

fn main() {}
