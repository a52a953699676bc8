// A client has methods.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

#[service_client(service = "orders")]
trait Orders {}

fn main() {}
