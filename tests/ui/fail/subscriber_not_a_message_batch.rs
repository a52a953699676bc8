// The payload of a batch has no contract.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

interline::service!("billing");

struct Order;

#[subscriber(batch(max = 10, wait = "1s"))]
async fn handle(orders: Batch<Order>, meta: Meta) {}

fn main() {}
