// Nothing would be fetched.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

interline::service!("billing");

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "orders.placed", key = order_id)]
struct OrderPlaced {
    order_id: String,
}

#[subscriber(rabbitmq(prefetch = 0))]
async fn handle(order: OrderPlaced) {}

fn main() {}
