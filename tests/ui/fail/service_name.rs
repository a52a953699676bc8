// A name that no broker takes.
//~ 1 error
#![allow(dead_code, unused_variables)]

interline::service!("bill/ing");

fn main() {}
