// The topic has no such segment.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

interline::service!("billing");

#[subscriber(topic = "orders.{region}", on_unknown = skip)]
async fn handle(order: Raw, #[segment] regoin: String) {}

fn main() {}
