// Only a message whose contract names a reply is answered.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

interline::service!("quotes");

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "quotes.asked")]
struct Ask {
    sku: String,
}

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "quotes.given")]
struct Quote {
    cents: u64,
}

#[subscriber]
async fn quote(ask: Ask) -> Reply<Quote> {
    Reply(Quote { cents: 1 })
}

fn main() {}
