// A message is lent to be published, so that it can be published again.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

interline::service!("billing");

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "orders.placed", key = order_id)]
struct OrderPlaced {
    order_id: String,
}

async fn send(publisher: Publisher, order: OrderPlaced) {
    let _ = publisher.publish(order).await;
}

fn main() {}
