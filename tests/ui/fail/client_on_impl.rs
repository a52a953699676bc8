// A client is a trait, and not what implements it.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

struct Orders;

#[service_client(service = "orders")]
impl Orders {}

fn main() {}
