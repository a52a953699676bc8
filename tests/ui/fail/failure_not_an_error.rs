// A failure is an error.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

#[derive(Debug, Failure)]
enum ChargeError {
    #[fate(retry)]
    Network,
}

fn main() {}
