// The attribute goes on functions.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

#[subscriber]
trait Orders {
    fn handle(&self);
}

fn main() {}
