// The service is declared at the root.
//~ 1 error
#![allow(dead_code, unused_variables)]

mod inner {
    interline::service!("billing");
}

fn main() {}
