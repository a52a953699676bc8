// A service has a name.
//~ 1 error
#![allow(dead_code, unused_variables)]

interline::service!("");

fn main() {}
