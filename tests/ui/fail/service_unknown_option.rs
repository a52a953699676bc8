// An option that is not there.
//~ 1 error
#![allow(dead_code, unused_variables)]

interline::service!("billing", version = "2");

fn main() {}
