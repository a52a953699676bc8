// A batch is not settled by hand.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

interline::service!("billing");

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "orders.placed", key = order_id)]
struct OrderPlaced {
    order_id: String,
}

#[subscriber(ack = manual, batch(max = 10, wait = "1s"))]
async fn handle(orders: Batch<OrderPlaced>, settle: Settle) {}

fn main() {}
