// Each variant says what becomes of the message; all that do not are reported.
//~ 2 errors
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

#[derive(Debug, Failure)]
enum ChargeError {
    Network,
    #[fate(discard)]
    Duplicate,
    Refused,
}

impl std::fmt::Display for ChargeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("not charged")
    }
}

impl std::error::Error for ChargeError {}

fn main() {}
