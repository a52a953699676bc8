// A crate that shadows everything the generated code could lean on.
#![forbid(unsafe_code)]
#![no_implicit_prelude]
#![deny(warnings)]
#![allow(dead_code, reason = "the shadows")]

use ::serde::{Deserialize, Serialize};

struct Result;
struct Option;
struct Box;
struct Vec;
struct String;
struct Arc;
struct Some;
struct None;
struct Ok;
struct Err;
trait Message {}
trait Clone {}
trait From {}
mod core {}
mod std {}
mod alloc {}
mod serde {}
mod interline {}

::interline::service!("hostile");

#[derive(::interline::Message, Serialize, Deserialize)]
#[message(topic = "orders.{region}.placed", key = order_id, id = order_id, version = 2, ttl = "1h",
          priority = 3, codec = json, from(1 = Old))]
struct Placed {
    order_id: ::std::string::String,
    region: ::std::string::String,
}

#[derive(::interline::Message, Serialize, Deserialize)]
#[message(topic = "orders.old.placed")]
struct Old {
    order_id: ::std::string::String,
}

impl ::core::convert::From<Old> for Placed {
    fn from(old: Old) -> Self {
        Self {
            order_id: old.order_id,
            region: ::std::string::String::new(),
        }
    }
}

#[derive(::interline::Messages)]
enum Orders {
    Placed(Placed),
    Old(Old),
}

#[derive(::core::fmt::Debug, ::interline::Failure)]
enum Refused {
    #[fate(retry(after = after))]
    Later { after: ::core::time::Duration },
    #[fate(retry(after = 0))]
    Perhaps(::core::option::Option<::core::time::Duration>),
    #[fate(pause = "5s")]
    Pause,
    #[fate(discard)]
    Never,
}

impl ::core::fmt::Display for Refused {
    fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
        f.write_str("refused")
    }
}

impl ::core::error::Error for Refused {}

#[::interline::subscriber(ordered_by = key, retry(attempts = 3, first = "1s", factor = 1.5))]
async fn one(
    placed: &Placed,
    publisher: ::interline::Publisher,
    state: ::interline::State<u8>,
    #[header("x-tenant")] tenant: ::core::option::Option<::std::string::String>,
    #[segment] region: ::std::string::String,
) -> ::core::result::Result<(), Refused> {
    let _ = (placed, publisher, state, tenant, region);
    ::core::result::Result::Ok(())
}

#[::interline::subscriber(group = "batches", batch(max = 10, wait = "1s"))]
async fn many(
    placed: ::interline::Batch<Orders>,
    meta: ::interline::Meta,
) -> ::core::result::Result<::interline::BatchOutcome, Refused> {
    let _ = meta;
    ::core::result::Result::Ok(placed.all_done())
}

#[::interline::subscriber(topic = "elsewhere", on_unknown = skip, rabbitmq(
    queue = "q", queue_kind = classic, max_priority = 9, arguments("x-a" = 1, "x-b" = "c", "x-d" = true)))]
async fn foreign(text: ::core::option::Option<::std::string::String>) {
    let _ = text;
}

fn main() {
    let _ = service();
}
