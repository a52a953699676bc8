// A message of others names no reply.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

interline::service!("quotes");

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "quotes.asked", reply = Quote)]
struct Ask {
    sku: String,
}

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "quotes.given")]
struct Quote {
    cents: u64,
}

#[subscriber(topic = "prices.asked", on_unknown = dead_letter)]
async fn quote(ask: Ask) -> Reply<Quote> {
    todo!()
}

fn main() {}
