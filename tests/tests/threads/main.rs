//! What all calls of a service share, in every order in which threads can meet: the circuit breaker, the
//! retry budget, the rate limiter and the window of counts, on the atomics of loom.
//!
//! The modules are those of the runtime, with `sync` in the place of the one beside them.

mod breaker_models;
mod budget_models;
mod limiter_models;
mod sync;

#[allow(
    dead_code,
    unused_imports,
    missing_docs,
    reason = "all of it is used in its own crate"
)]
#[path = "../../../runtime/src/resilience/breaker/mod.rs"]
mod breaker;
#[allow(
    dead_code,
    unused_imports,
    missing_docs,
    reason = "all of it is used in its own crate"
)]
#[path = "../../../runtime/src/resilience/budget.rs"]
mod budget;
#[allow(
    dead_code,
    unused_imports,
    missing_docs,
    reason = "all of it is used in its own crate"
)]
#[path = "../../../runtime/src/clock.rs"]
mod clock;
#[allow(
    dead_code,
    unused_imports,
    missing_docs,
    reason = "all of it is used in its own crate"
)]
#[path = "../../../runtime/src/resilience/limiter.rs"]
mod limiter;
#[allow(
    dead_code,
    unused_imports,
    missing_docs,
    reason = "all of it is used in its own crate"
)]
#[path = "../../../runtime/src/resilience/window.rs"]
mod window;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    let all: [(&str, fn()); 9] = [
        ("as_many_probes_go_out_as_may", breaker_models::probes),
        ("a_dropped_probe_comes_back", breaker_models::dropped),
        ("a_circuit_opens_once", breaker_models::opens_once),
        ("a_late_result_is_not_counted", breaker_models::late),
        ("a_forced_circuit_stays_forced", breaker_models::forced),
        ("nobody_repeats_beyond_the_budget", budget_models::last_one),
        ("no_call_is_lost_for_the_budget", budget_models::deposits),
        ("a_window_rolls_once", budget_models::rolls),
        ("as_many_start_as_may", limiter_models::starts),
    ];
    let trials = all.map(|(name, model)| {
        Trial::test(name, move || {
            // Beyond this many switches in a row there is nothing new, and far more to try.
            let mut builder = loom::model::Builder::new();
            builder.preemption_bound = Some(2);
            builder.check(model);
            Ok(())
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.into()).exit_code()
}
