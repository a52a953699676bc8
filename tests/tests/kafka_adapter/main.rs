//! The Kafka adapter through its port, on a real server.

mod acl;
mod closing;
mod connections;
mod consuming;
mod groups;
mod later;
mod not_taken;
mod positions;
mod pressure;
mod publishing;
mod support;
mod tls;
mod topology;
mod way_back;

use std::process::ExitCode;
use std::time::Duration;

use interline_tests::harness::{self, Case};
use interline_tests::servers::Server;

fn main() -> ExitCode {
    if let Some(ended) = later::child() {
        return ended;
    }
    let cases = [
        publishing::cases(),
        consuming::cases(),
        groups::cases(),
        positions::cases(),
        way_back::cases(),
        closing::cases(),
        later::cases(),
        not_taken::cases(),
        topology::cases(),
        tls::cases(),
        connections::cases(),
        pressure::cases(),
    ];
    let needing = |case: Case| case.needs(Server::Kafka).limit(Duration::from_secs(180));
    harness::run(cases.into_iter().flatten().map(needing))
}
