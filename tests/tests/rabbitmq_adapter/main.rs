//! The RabbitMQ adapter on a real server: through its port, and from the attribute down to it.

mod attributes;
mod certificates;
mod connections;
mod consuming;
mod exchanges;
mod instances;
mod publishing;
mod settings;
mod settling;
mod support;
mod tls;
mod topology;

use std::process::ExitCode;

use interline_tests::harness::{self, Case};
use interline_tests::servers::Server;

interline::service!("adapter");

fn main() -> ExitCode {
    let cases = [
        publishing::cases(),
        consuming::cases(),
        exchanges::cases(),
        instances::cases(),
        settling::cases(),
        topology::cases(),
        attributes::cases(),
        connections::cases(),
        settings::cases(),
        tls::cases(),
    ];
    let needing = |case: Case| case.needs(Server::RabbitMq);
    harness::run(cases.into_iter().flatten().map(needing))
}
