// A placeholder is a whole segment.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

interline::service!("billing");

#[subscriber(topic = "orders.eu-{city}", on_unknown = skip)]
async fn handle(order: Raw) {}

fn main() {}
