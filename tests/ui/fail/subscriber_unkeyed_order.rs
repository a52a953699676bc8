// Without keys there is no order by key.
//~ 1 error
#![allow(dead_code, unused_variables)]

use interline::prelude::*;

interline::service!("billing");

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "billing.noted")]
struct Noted {
    text: String,
}

#[subscriber(ordered_by = key)]
async fn handle(note: Noted) {}

fn main() {}
