// A message has one fate.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

#[derive(Debug, Failure)]
enum ChargeError {
    #[fate(retry, discard)]
    Network,
}

impl std::fmt::Display for ChargeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("not charged")
    }
}

impl std::error::Error for ChargeError {}

fn main() {}
