// A reply is a message too.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

interline::service!("quotes");

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "quotes.asked", reply = Price)]
struct Ask {
    sku: String,
}

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "quotes.given")]
struct Quote {
    cents: u64,
}

struct Price;

fn main() {}
