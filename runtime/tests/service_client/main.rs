//! Clients of other services against real HTTP servers that answer by a script, directly or through a
//! network that fails.
#![cfg(all(
    feature = "http",
    feature = "macros",
    feature = "memory",
    feature = "testing"
))]

mod balancers;
mod breakers;
mod calls;
mod deadlines;
mod hedges;
mod rates;
mod retries;
mod server;
mod shop;

interline::service!("till");
