// What is published has a whole name: a star of RabbitMQ is none.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "orders.*.placed")]
struct OrderPlaced {
    order_id: String,
}

fn main() {}
