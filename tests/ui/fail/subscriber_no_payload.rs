// There is no message to take.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

interline::service!("billing");

#[subscriber]
async fn handle() {}

fn main() {}
