//! Clients of other services against real HTTP servers that answer by a script, directly or through a
//! network that fails.
#![cfg(all(
    feature = "http",
    feature = "macros",
    feature = "memory",
    feature = "testing"
))]
#![expect(
    clippy::unwrap_used,
    reason = "it is all tests, and the lint takes their helpers for something else"
)]

mod balancers;
#[cfg(feature = "msgpack")]
mod bodies;
mod breakers;
mod caching;
mod calls;
mod checks;
mod connections;
mod deadlines;
mod discovery;
#[cfg(feature = "dns")]
mod discovery_dns;
#[cfg(feature = "dns")]
#[path = "../../src/discovery/dns/tests/server.rs"]
#[allow(dead_code, reason = "the tests of the backend itself use all of it")]
mod dns_server;
mod fallbacks;
mod faults;
mod hedges;
mod http2;
#[cfg(feature = "tower")]
mod layers;
mod measures;
mod rates;
mod registration;
mod retries;
mod server;
mod shop;
mod streams;
#[cfg(feature = "tls")]
mod tls;

interline::service!("till");
