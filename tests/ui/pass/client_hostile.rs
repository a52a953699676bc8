// A client in a crate that shadows everything the generated code could lean on.
#![forbid(unsafe_code)]
#![no_implicit_prelude]
#![deny(warnings)]
#![allow(dead_code, reason = "the shadows")]

struct Option;
struct Box;
struct Vec;
struct String;
struct Arc;
struct Some;
struct None;
struct Ok;
struct Err;
trait Future {}
trait Clone {}
trait From {}
trait Send {}
trait Sync {}
mod core {}
mod std {}
mod alloc {}
mod serde {}
mod http {}
mod interline {}

use ::interline::http::{CallError, Response};
use ::std::result::Result;

#[::interline::service_client(
    service = "orders", base = "/api", timeout = "2s", attempt_timeout = "1s",
    retry(attempts = 2, first = "10ms", max = "1s", jitter = equal), client = Caller
)]
pub(crate) trait Orders {
    #[cfg(all())]
    #[get("/orders/{id}/{kind}")]
    #[retry(attempts = 3)]
    #[fallback(service = "archive")]
    async fn order(
        &self,
        id: u64,
        kind: &str,
        #[query] page: ::std::option::Option<u32>,
        #[header("x-tenant")] tenant: ::std::borrow::Cow<'_, str>,
    ) -> Result<::std::option::Option<Response<::std::string::String>>, CallError>;

    #[post("/orders")]
    #[idempotent]
    async fn place(&self, #[body] order: &[&str]) -> Result<(), CallError>;
}

fn takes<C: ::interline::http::ServiceClient>() {}

fn main() {
    takes::<Caller>();
}
