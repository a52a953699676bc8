// The message comes first.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

interline::service!("billing");

#[subscriber]
async fn handle(#[header("x-tenant")] tenant: String) {}

fn main() {}
