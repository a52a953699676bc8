// A method has no self to be called on.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

interline::service!("billing");

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "orders.placed", key = order_id)]
struct OrderPlaced {
    order_id: String,
}

struct Orders;

impl Orders {
    #[subscriber]
    async fn handle(&self, order: OrderPlaced) {}
}

fn main() {}
