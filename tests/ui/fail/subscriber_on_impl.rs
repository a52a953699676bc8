// The attribute goes on functions.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

struct Orders;

#[subscriber]
impl Orders {
    async fn handle(order: String) {}
}

fn main() {}
