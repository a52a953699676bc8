// Only a trait can be a client.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

#[derive(Serialize, Deserialize)]
struct Order {
    id: u64,
}

#[service_client(service = "orders")]
struct Orders;

fn main() {}
