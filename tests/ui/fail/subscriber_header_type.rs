// A header is read from its text.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

interline::service!("billing");

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "orders.placed", key = order_id)]
struct OrderPlaced {
    order_id: String,
}

struct Tenant;

#[subscriber]
async fn handle(order: OrderPlaced, #[header("x-tenant")] tenant: Tenant) {}

fn main() {}
