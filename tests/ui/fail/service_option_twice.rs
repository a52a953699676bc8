// An option stands once.
//~ 1 error
#![allow(dead_code, unused_variables)]

interline::service!("billing", crate = interline, crate = interline);

fn main() {}
