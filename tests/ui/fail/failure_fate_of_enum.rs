// The variants have fates, the enum has none.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

#[derive(Debug, Failure)]
#[fate(retry)]
enum ChargeError {
    #[fate(retry)]
    Network,
}

impl std::fmt::Display for ChargeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("not charged")
    }
}

impl std::error::Error for ChargeError {}

fn main() {}
