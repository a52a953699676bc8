//! What a service's author is promised, as one list of cases that every broker passes.
//!
//! Each case launches apps with real `#[subscriber]` handlers and looks at them from two sides: from
//! within the handlers, and from outside as a foreign client of the broker that knows nothing of
//! Interline. The embedded broker runs them in virtual time, the others on a real server with a place
//! of their own for each.
//!
//! A new case is a function from a [`World`] and a line in the `CASES` of its file. A new broker is a
//! [`Bench`](bench::Bench) and a row in [`PLACES`](bench::PLACES); what it does not promise stands in
//! [`EXCEPTIONS`](exceptions::EXCEPTIONS), and what only it has in a file of its own.

use std::process::ExitCode;
use std::sync::Arc;

use interline_tests::harness::{self, Case};

mod bench;
mod crashes;
mod exceptions;
mod fates;
mod lifecycle;
mod payloads;
mod probe;
mod returns;
mod topics;
mod work;
mod world;

use bench::{PLACES, Place};
use world::{CaseFn, World};

interline::service!("conform");

/// Every case: its name, and what it does.
const CASES: &[&[(&str, CaseFn)]] = &[
    crashes::CASES,
    fates::CASES,
    lifecycle::CASES,
    payloads::CASES,
    returns::CASES,
    topics::CASES,
];

fn main() -> ExitCode {
    let names: Vec<&str> = CASES
        .iter()
        .copied()
        .flatten()
        .map(|(name, _)| *name)
        .collect();
    exceptions::check(&names);
    let mut cases = Vec::new();
    for &(name, body) in CASES.iter().copied().flatten() {
        for place in PLACES {
            if !exceptions::excepted(name, place.kind) {
                cases.push(case(place, name, body));
            }
        }
    }
    harness::run(cases)
}

fn case(place: &'static Place, name: &str, body: CaseFn) -> Case {
    let name = format!("{}::{name}", place.kind);
    let run = move || async move {
        let world = Arc::new(World::open(place).await?);
        body(Arc::clone(&world)).await?;
        // Only after success: what a failed case left is there to be looked at.
        world.close().await
    };
    match place.server {
        None => Case::with_virtual_time(name, run),
        Some(server) => Case::new(name, run).needs(server),
    }
}
