// A subscriber takes one message; several types are an enum.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

interline::service!("billing");

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "orders.placed", key = order_id)]
struct OrderPlaced {
    order_id: String,
}

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "billing.charged")]
struct Charged {}

#[subscriber]
async fn handle(order: OrderPlaced, paid: Charged) {}

fn main() {}
