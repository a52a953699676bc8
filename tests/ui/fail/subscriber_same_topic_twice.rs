// The same for a topic of others.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

interline::service!("billing");

#[subscriber(topic = "orders", group = "g", on_unknown = skip)]
async fn first(order: Raw) {}

#[subscriber(topic = "orders", group = "g", on_unknown = skip)]
async fn second(order: Raw) {}

fn main() {}
