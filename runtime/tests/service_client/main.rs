//! Clients of other services against real HTTP servers that answer by a script, directly or through a
//! network that fails.
#![cfg(all(
    feature = "http",
    feature = "macros",
    feature = "memory",
    feature = "testing"
))]

mod balancers;
#[cfg(feature = "msgpack")]
mod bodies;
mod breakers;
mod caching;
mod calls;
mod checks;
mod deadlines;
mod discovery;
mod fallbacks;
mod hedges;
#[cfg(feature = "tower")]
mod layers;
mod rates;
mod registration;
mod retries;
mod server;
mod shop;
#[cfg(feature = "tls")]
mod tls;

interline::service!("till");
