// A pattern is written with a placeholder, not with an operator of one broker.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

interline::service!("billing");

#[subscriber(topic = "orders.#", on_unknown = skip)]
async fn handle(order: Raw) {}

fn main() {}
