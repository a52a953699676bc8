// What is published must be a message.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

interline::service!("billing");

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "orders.placed", key = order_id)]
struct OrderPlaced {
    order_id: String,
}

struct Line;

async fn send(publisher: Publisher) {
    let _ = publisher.publish(&Line).await;
}

fn main() {}
