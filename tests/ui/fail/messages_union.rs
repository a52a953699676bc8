// An enum says which of its messages it holds, a union does not.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

#[derive(Messages)]
union Orders {
    number: u64,
    letters: [u8; 8],
}

fn main() {}
