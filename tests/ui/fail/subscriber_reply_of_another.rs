// What a subscriber answers with is the reply that the contract names.
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

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "prices.given")]
struct Price {
    cents: u64,
}

#[subscriber]
async fn quote(ask: Ask) -> Result<Reply<Price>, PublishError> {
    todo!()
}

fn main() {}
