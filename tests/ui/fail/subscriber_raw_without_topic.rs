// Bytes have no contract to take the topic from.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

interline::service!("billing");

#[subscriber]
async fn handle(order: Raw) {}

fn main() {}
