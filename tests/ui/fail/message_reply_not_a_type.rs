// A reply is a type, not a text.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

interline::service!("quotes");

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "quotes.asked", reply = "Quote")]
struct Ask {
    sku: String,
}

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "quotes.given")]
struct Quote {
    cents: u64,
}


fn main() {}
