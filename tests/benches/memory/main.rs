//! Resident memory of a service behind a million messages: a slow handler must not make it grow.
//!
//! ```sh
//! cargo bench -p interline-tests --bench memory                        # every broker, twenty minutes
//! cargo bench -p interline-tests --bench memory -- kafka --messages 100000
//! ```
//!
//! The queue is filled by a raw client before the service starts; then the service runs in a process of
//! its own, so that nothing else counts, and says what Linux states as its resident set. The broker is
//! asked before and after: all messages ready, then none. On the embedded broker the messages are in
//! the service's own memory, so what is shown there is also what a message needs.

mod ground;
mod service;

use std::env;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use ground::{Broker, Ground};
use interline_tests::asked::Asked;
use service::Course;

interline::service!("bench");

type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T> = std::result::Result<T, Error>;

/// How long anything may take that has to happen.
const LIMIT: Duration = Duration::from_secs(1_800);
/// How many messages there are, and how long the handler sleeps over each.
const NUMBERS: &[(&str, u64)] = &[("messages", 1_000_000), ("delay-ms", 1)];
/// How much more than at 10 % it may ever be afterwards.
const GROWTH_MIB: f64 = 16.0;
/// Says to the program that it is the service.
const CHILD: &str = "INTERLINE_BENCH_MEMORY";

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("the system gives two threads");
    let done = runtime.block_on(async {
        match env::var(CHILD) {
            Ok(told) => service::run(&told).await,
            Err(_) => compare(&Asked::read(env::args().skip(1), NUMBERS)?).await,
        }
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn compare(asked: &Asked) -> Result<()> {
    let names = Broker::ALL.map(Broker::name);
    let (count, delay) = (asked.number("messages"), asked.number("delay-ms"));
    println!(
        "### {count} messages of {} bytes ready, a handler that sleeps for {delay} ms, 16 at once\n",
        ground::SIZE
    );
    println!("| broker | before | ready | 10 % | end | most after 10 % | seconds |");
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: |");
    let mut grown = Vec::new();
    let mut ran = 0;
    for broker in Broker::ALL {
        if !asked.includes(broker.name()) {
            continue;
        }
        ran += 1;
        let course = measure(broker, count, delay).await?;
        let Course {
            before,
            ready,
            tenth,
            end,
            most,
            seconds,
        } = course;
        println!(
            "| {} | {before:.1} MiB | {ready:.1} MiB | {tenth:.1} MiB | {end:.1} MiB | {most:.1} MiB \
             | {seconds:.0} |",
            broker.name()
        );
        if most - tenth > GROWTH_MIB {
            grown.push(format!("{}: {:.1} MiB", broker.name(), most - tenth));
        }
    }
    if ran == 0 {
        return Err(format!("none of {names:?} contains all of {:?}", asked.words()).into());
    }
    if grown.is_empty() {
        println!("\nNone grew by more than {GROWTH_MIB} MiB after 10 %.\n");
        return Ok(());
    }
    Err(format!("grown after 10 %: {}", grown.join(", ")).into())
}

async fn measure(broker: Broker, count: u64, delay: u64) -> Result<Course> {
    let ground = Ground::open(broker).await?;
    let begun = Instant::now();
    ground.fill(count).await?;
    eprintln!("({}: filled in {:?})", broker.name(), begun.elapsed());
    let told = service::told(&ground.settings(), count, delay);
    let ran = Command::new(env::current_exe()?)
        .env(CHILD, told)
        .stderr(Stdio::inherit())
        .output();
    let ran = ran?;
    if !ran.status.success() {
        return Err(format!("{}: {}", broker.name(), ran.status).into());
    }
    let course = Course::parse(&String::from_utf8(ran.stdout)?)?;
    ground.is_empty().await?;
    ground.end().await?;
    Ok(course)
}
