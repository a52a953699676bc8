// Segments have something between their dots.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

interline::service!("billing");

#[subscriber(topic = "orders..placed", on_unknown = skip)]
async fn handle(order: Raw) {}

fn main() {}
