//! The Redis adapter on a real server: what the port's contract does not cover.

use std::process::ExitCode;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use interline_tests::harness::{self, Case, soak};
use interline_tests::servers::Server;

mod channels;
mod connections;
mod entries;
mod groups;
mod losses;
mod order;
mod recovery;
mod retention;
mod support;
mod tls;
mod topology;

/// A case and its name.
type Named = (
    &'static str,
    fn() -> LocalBoxFuture<'static, support::Outcome>,
);

/// Names the cases of a file.
macro_rules! cases {
    ($($case:ident),+ $(,)?) => {
        /// The cases of this file.
        pub const CASES: &[crate::Named] = &[$((stringify!($case), || Box::pin($case()))),+];
    };
}
use cases;

fn main() -> ExitCode {
    let all = [
        channels::CASES,
        connections::CASES,
        entries::CASES,
        groups::CASES,
        losses::CASES,
        order::CASES,
        recovery::CASES,
        retention::CASES,
        tls::CASES,
        topology::CASES,
    ];
    let limit = Duration::from_secs(if soak() { 1_800 } else { 120 });
    let cases = all.into_iter().flatten();
    harness::run(cases.map(|&(name, case)| {
        let case = Case::new(name, case);
        case.needs(Server::Redis).limit(limit)
    }))
}
