//! What a service's author is promised, as one list of cases that every broker passes.
//!
//! Each case launches apps with real `#[subscriber]` handlers and looks at them from two sides: from
//! within the handlers, and from outside as a foreign client of the broker that knows nothing of
//! Interline. The embedded broker runs them in virtual time, the others on a real server with a place
//! of their own for each.
//!
//! A new case is a function from a [`World`] and a line in the `CASES` of its file. A new broker is a
//! [`Bench`](bench::Bench) and a row in [`PLACES`](bench::PLACES); what it does not promise stands in
//! [`EXCEPTIONS`](exceptions::EXCEPTIONS), and what only it has in a file of its own. The table in
//! `docs/guarantees.md` is made of both; `INTERLINE_RECORD=1` writes it.

use std::process::ExitCode;
use std::sync::Arc;

use interline_tests::harness::{self, Case};
use interline_tests::servers::Server;

mod again;
mod batches;
mod bench;
mod breaker;
mod context;
mod crashes;
mod deliveries;
mod exceptions;
mod extractors;
mod fates;
mod faults;
mod groups;
mod guarantees;
mod interruptions;
mod lifecycle;
mod once;
mod only_rabbitmq;
mod order;
mod payloads;
mod probe;
mod retries;
mod returns;
mod topics;
mod versions;
mod work;
mod world;

use bench::{PLACES, Place, RabbitMqBench};
use world::{CaseFn, World};

interline::service!("conform");

/// Every case: its name, and what it does.
const CASES: &[&[(&str, CaseFn)]] = &[
    again::CASES,
    batches::CASES,
    breaker::CASES,
    context::CASES,
    crashes::CASES,
    deliveries::CASES,
    extractors::CASES,
    fates::CASES,
    faults::CASES,
    groups::CASES,
    interruptions::CASES,
    lifecycle::CASES,
    order::CASES,
    payloads::CASES,
    retries::CASES,
    returns::CASES,
    topics::CASES,
    versions::CASES,
];

fn main() -> ExitCode {
    let names: Vec<&str> = CASES
        .iter()
        .copied()
        .flatten()
        .map(|(name, _)| *name)
        .collect();
    exceptions::check(&names);
    let table = "docs::the_table_of_guarantees_is_what_the_cases_say";
    let mut cases = vec![Case::blocking(table, {
        let names = names.clone();
        move || guarantees::compare(&names)
    })];
    for &(name, body) in CASES.iter().copied().flatten() {
        for place in PLACES {
            if exceptions::because(name, place.kind).is_none() {
                cases.push(case(place, name, body));
            }
        }
    }
    for &(name, body) in only_rabbitmq::CASES {
        let run = move || async move {
            let bench = Arc::new(RabbitMqBench::open().await?);
            let world = Arc::new(World::on("rabbitmq", Arc::clone(&bench) as _));
            body(Arc::clone(&world), bench).await?;
            world.close().await
        };
        cases.push(Case::new(format!("rabbitmq::{name}"), run).needs(Server::RabbitMq));
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
