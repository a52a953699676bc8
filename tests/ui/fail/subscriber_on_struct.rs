// A struct handles nothing.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

#[subscriber]
struct Orders;

fn main() {}
