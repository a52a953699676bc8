// A foreign payload must be readable.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

interline::service!("billing");

struct Order;

#[subscriber(topic = "orders", on_unknown = skip)]
async fn handle(order: Order) {}

fn main() {}
