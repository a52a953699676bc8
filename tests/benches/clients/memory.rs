//! What an endpoint costs that is called now and then: its connection, and all that is known of it.

use std::env;
use std::fs;
use std::process::{Command, Stdio};

use crate::order::BASE;
use crate::rows::{self, Client, Kind};
use crate::upstream::{Manner, Upstream};
use crate::{LIMIT, Result};

pub(crate) const TITLE: &str = "Memory of idle endpoints";

/// The first argument of the process whose memory is looked at.
pub(crate) const ROLE: &str = "memory-of";

/// Endpoints, each with a port and a connection of its own.
const ENDPOINTS: usize = 1_000;
/// Calls before anything is looked at.
const WARM: u64 = 100;

/// Runs this program once more for each row, so that nothing else counts.
pub(crate) fn run() -> Result<()> {
    println!("### {TITLE}: {ENDPOINTS}, one connection each\n");
    println!("| row | KiB each, not called yet | KiB each, with an idle connection |");
    println!("| --- | ---: | ---: |");
    for kind in [Kind::Plain, Kind::WithMetrics, Kind::WithoutMetrics] {
        let ran = Command::new(env::current_exe()?)
            .args([ROLE, kind.word()])
            .stderr(Stdio::inherit())
            .output()?;
        if !ran.status.success() {
            return Err(format!("`{}`: {}", kind.title(), ran.status).into());
        }
        let columns = String::from_utf8(ran.stdout)?;
        println!("| {} | {} |", kind.title(), columns.trim());
    }
    println!();
    Ok(())
}

/// The process whose memory is looked at.
pub(crate) async fn measure(arguments: &[String]) -> Result<()> {
    let [word] = arguments else {
        return Err("a row is needed".into());
    };
    let upstream = Upstream::start(ENDPOINTS + 1, Manner::Kept)?;
    let (one, many) = (upstream.url(ENDPOINTS), ENDPOINTS);
    let urls: Vec<_> = upstream.urls().take(many).collect();
    let kind = Kind::ALL.into_iter().find(|kind| kind.word() == word);
    let kind = kind.ok_or_else(|| format!("there is no row `{word}`"))?;
    // Everything that is there once, whatever is called: code, thread pools, buffers.
    let first = Client::connect(kind, &one).await?;
    for id in 0..WARM {
        first.order(id).await?;
    }
    let before = resident()?;
    let (ready, called) = match kind {
        Kind::WithMetrics | Kind::WithoutMetrics => {
            of_interline(&urls, kind == Kind::WithMetrics, &upstream).await?
        }
        _ => of_reqwest(&urls, &upstream).await?,
    };
    first.close().await;
    #[expect(clippy::cast_precision_loss, reason = "counts here are far below 2^52")]
    let each = |after: u64| (after as f64 - before as f64) / ENDPOINTS as f64;
    println!("{:.1} | {:.1}", each(ready), each(called));
    Ok(())
}

async fn of_interline(urls: &[String], metrics: bool, upstream: &Upstream) -> Result<(u64, u64)> {
    // Each in its turn; a connection that ends meanwhile would be missing.
    let lines = "balance = \"round_robin\"\nidle_timeout = \"10m\"";
    let running = rows::launch(rows::config(urls, lines), metrics).await?;
    let client: rows::OrdersClient = running.client()?;
    let ready = resident()?;
    for id in 0..urls.len() as u64 {
        rows::Orders::order(&client, id).await?.checked(id)?;
    }
    let called = resident()?;
    connected(upstream).await?;
    running.stop_within(LIMIT).await;
    Ok((ready, called))
}

async fn of_reqwest(urls: &[String], upstream: &Upstream) -> Result<(u64, u64)> {
    let client = rows::plain_client()?;
    let ready = resident()?;
    for (id, url) in urls.iter().enumerate() {
        let url = format!("{url}{BASE}/orders/{id}");
        client
            .get(url)
            .send()
            .await?
            .error_for_status()?
            .bytes()
            .await?;
    }
    let called = resident()?;
    connected(upstream).await?;
    Ok((ready, called))
}

/// Checks that every endpoint was called once and has its connection.
async fn connected(upstream: &Upstream) -> Result<()> {
    let connections = upstream.connections().await?;
    let answered = upstream.answered_by_all().await?;
    if connections < ENDPOINTS as u64 || answered != WARM + ENDPOINTS as u64 {
        let text =
            format!("{connections} connections and {answered} calls for {ENDPOINTS} endpoints");
        return Err(text.into());
    }
    Ok(())
}

/// The resident set, in KiB.
fn resident() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|value| value.split_whitespace().next()?.parse().ok())
        .ok_or_else(|| "the system does not state the resident set".into())
}
