// No message at all.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

#[derive(Messages)]
enum Orders {}

fn main() {}
