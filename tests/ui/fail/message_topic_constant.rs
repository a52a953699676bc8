// A constant topic is checked as well.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

const ORDERS: &str = "orders..placed";

#[derive(Message, Serialize, Deserialize)]
#[message(topic = ORDERS)]
struct OrderPlaced {
    order_id: String,
}

fn main() {}
