// A client is a trait, and a function one of its methods.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

#[service_client(service = "orders")]
async fn order(id: u64) -> Result<u64, CallError> {
    Ok(id)
}

fn main() {}
