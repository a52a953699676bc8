//! The contract of a broker, as one list of cases that every adapter passes.
//!
//! The embedded broker runs them in virtual time, RabbitMQ on a real server in a virtual host of
//! its own for each, Kafka on a real server under a prefix of its own, Redis in a database of its own. A
//! new case is a function from a [`World`] and a line in the `CASES` of its file;
//! a new adapter is a [`Bench`](world::Bench). Pub/Sub passes what does not stand in
//! [`ON_CHANNELS`](exceptions::ON_CHANNELS).

use std::process::ExitCode;
use std::sync::Arc;

use interline_tests::harness::{self, Case};
use interline_tests::servers::Server;

mod deadletters;
mod deliveries;
mod exceptions;
mod payloads;
mod publishing;
mod replies;
mod retries;
mod scheduling;
mod subscriptions;
mod trace;
mod world;

use world::{Bench, CaseFn, World};

/// Every case: its name, and what it does.
const CASES: &[&[(&str, CaseFn)]] = &[
    deadletters::CASES,
    deliveries::CASES,
    payloads::CASES,
    publishing::CASES,
    replies::CASES,
    retries::CASES,
    scheduling::CASES,
    subscriptions::CASES,
];

fn main() -> ExitCode {
    let mut cases = Vec::new();
    for &(name, body) in CASES.iter().copied().flatten() {
        cases.push(Case::with_virtual_time(
            format!("memory::{name}"),
            move || async move { run(World::new(Bench::memory()), body).await },
        ));
        let on_server = Case::new(format!("rabbitmq::{name}"), move || async move {
            run(World::new(Bench::rabbitmq().await?), body).await
        });
        cases.push(on_server.needs(Server::RabbitMq));
        let on_server = Case::new(format!("kafka::{name}"), move || async move {
            let cut = name.contains("lost_connection") || name.contains("loss_of_the_connection");
            run(World::new(Bench::kafka(cut).await?), body).await
        });
        cases.push(on_server.needs(Server::Kafka));
        let on_server = Case::new(format!("redis::{name}"), move || async move {
            run(World::new(Bench::redis().await?), body).await
        });
        cases.push(on_server.needs(Server::Redis));
        if exceptions::on_channels(name) {
            continue;
        }
        let on_server = Case::new(format!("redis-pubsub::{name}"), move || async move {
            run(World::new(Bench::redis_pubsub().await?), body).await
        });
        cases.push(on_server.needs(Server::Redis));
    }
    exceptions::check(CASES);
    cases.extend(trace::cases());
    harness::run(cases)
}

async fn run(world: World, body: CaseFn) -> world::Outcome {
    let world = Arc::new(world);
    body(Arc::clone(&world)).await?;
    // Only after success: what a failed case left is there to be looked at.
    world.close().await
}
