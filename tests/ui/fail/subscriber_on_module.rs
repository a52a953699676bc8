// The attribute goes on each function, not on what is around them.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

interline::service!("billing");

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "orders.placed", key = order_id)]
struct OrderPlaced {
    order_id: String,
}

#[subscriber]
mod handlers {
    pub async fn handle(order: super::OrderPlaced) {}
}

fn main() {}
