// An error that is a struct has one fate.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

#[derive(Debug, thiserror::Error, Failure)]
#[error("the bank is away")]
struct BankAway;

fn main() {}
