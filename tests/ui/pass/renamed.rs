// The dependency has another name in this crate, and `crate = ..` says which.
#![deny(warnings)]

extern crate interline as renamed;

use renamed::{Batch, Failure, Message, Messages, Raw, service, subscriber};
use serde::{Deserialize, Serialize};

mod interline {}

service!("renamed", crate = ::renamed);

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "orders.placed", crate = ::renamed)]
pub struct Placed {
    pub order_id: String,
}

#[derive(Messages)]
#[messages(crate = renamed)]
pub enum Orders {
    Placed(Placed),
}

#[derive(Debug, Failure)]
#[failure(crate = ::renamed)]
#[fate(retry)]
pub struct Refused;

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("refused")
    }
}

impl std::error::Error for Refused {}

#[subscriber(crate = ::renamed)]
pub async fn handle(orders: Orders) -> Result<(), Refused> {
    match orders {
        Orders::Placed(_) => Err(Refused),
    }
}

#[subscriber(crate = renamed, topic = "raw", on_unknown = skip, batch(max = 2, wait = "1s"))]
pub async fn raw(bytes: Batch<Raw>) {
    drop(bytes);
}

fn main() {
    let identity = *service().identity();
    assert_eq!(identity.name, "renamed");
    assert!(identity.is_program);
}
