//! Instructions and allocations of a call, counted by callgrind: they do not depend on what else runs.

use std::process;

use crate::callgrind::{self, Counts};
use crate::rows::{Client, Kind};
use crate::upstream::{Manner, Upstream};
use crate::{Error, Result};

pub(crate) const TITLE: &str = "Instructions and allocations of each call";

/// The first argument of the process that is counted.
pub(crate) const ROLE: &str = "run";

/// Runs each row with so many calls and with twice as many: the difference is what they cost, without
/// start and end.
pub(crate) fn run(calls: u64) -> Result<()> {
    println!("### {TITLE}, from {calls} and {} calls\n", 2 * calls);
    println!("| row | instructions | more | allocations | more |");
    println!("| --- | ---: | ---: | ---: | ---: |");
    let mut base = None;
    for kind in Kind::ALL {
        let once = callgrind::run(kind.word(), calls)?;
        let twice = callgrind::run(kind.word(), 2 * calls)?;
        let each = |count: fn(&Counts) -> u64| {
            let more = count(&twice).saturating_sub(count(&once));
            #[expect(clippy::cast_precision_loss, reason = "counts here are far below 2^52")]
            let each = more as f64 / calls as f64;
            each
        };
        let instructions = each(|counts| counts.instructions);
        let allocations = each(|counts| counts.allocations);
        let (base_instructions, base_allocations) =
            *base.get_or_insert((instructions, allocations));
        println!(
            "| {} | {instructions:.0} | {:+.0} | {allocations:.1} | {:+.1} |",
            kind.title(),
            instructions - base_instructions,
            allocations - base_allocations,
        );
    }
    println!();
    Ok(())
}

/// What is counted: one row's calls, one after the other, on one thread.
pub(crate) fn calls(arguments: &[String]) -> Result<()> {
    let [word, calls] = arguments else {
        return Err("a row and a number of calls are needed".into());
    };
    let kind = Kind::ALL.into_iter().find(|kind| kind.word() == word);
    let kind = kind.ok_or_else(|| format!("there is no row `{word}`"))?;
    let calls: u64 = calls.parse()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let upstream = Upstream::start(1, Manner::Kept)?;
        let client = Client::connect(kind, &upstream.url(0)).await?;
        for id in 0..calls {
            client.order(id).await?;
        }
        let given = upstream.answered(0).await?;
        if given != calls {
            return Err(format!("{given} orders given, not {calls}").into());
        }
        Ok::<_, Error>(())
    })?;
    // Going down in order is the same in both runs only when there is nothing left to do.
    process::exit(0);
}
