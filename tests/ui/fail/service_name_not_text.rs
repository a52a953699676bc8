// A name is a text.
//~ 1 error
#![allow(dead_code, unused_variables)]

interline::service!(billing);

fn main() {}
