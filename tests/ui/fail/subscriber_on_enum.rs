// An enum handles nothing.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

#[subscriber]
enum Orders {
    Placed,
}

fn main() {}
