// Foreign messages may be unreadable, and it must be said what becomes of them.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

interline::service!("billing");

#[subscriber(topic = "orders")]
async fn handle(order: Raw) {}

fn main() {}
