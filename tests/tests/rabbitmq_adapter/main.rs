//! The RabbitMQ adapter through its port, on a real server.

mod certificates;
mod connections;
mod consuming;
mod publishing;
mod settling;
mod support;
mod tls;
mod topology;

use std::process::ExitCode;

use interline_tests::harness::{self, Case};
use interline_tests::servers::Server;

fn main() -> ExitCode {
    let cases = [
        publishing::cases(),
        consuming::cases(),
        settling::cases(),
        topology::cases(),
        connections::cases(),
        tls::cases(),
    ];
    let needing = |case: Case| case.needs(Server::RabbitMq);
    harness::run(cases.into_iter().flatten().map(needing))
}
