//! A rate limit that all instances of a program keep together, on Redis.

mod link;
mod returns;
mod script;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use crate::config::{Faults, Section};
use crate::redis::Settings;

use super::{RateLimited, RateLimiter, Turn};
use link::Link;
use returns::{Asking, Returns};
use script::Rate;

pub(crate) use returns::SharedTurn;

/// How a limit is shared.
///
/// | key | default | |
/// |---|---|---|
/// | `url`, `username`, .. | `redis://localhost` | as for a broker on Redis |
/// | `key` | `interline:rate:NAME` | what the limit is called on the server; who names the same shares it |
/// | `on_failure` | `open` | where Redis does not answer, each instance keeps the whole rate by itself; `closed`: nothing starts |
/// | `answer_within` | `100ms` | how long Redis may take to answer before that |
#[derive(Clone, Debug)]
pub(crate) struct SharedRateSettings {
    redis: Settings,
    key: String,
    closed: bool,
    answer_within: Duration,
}

impl SharedRateSettings {
    /// Reads the section; what is wrong goes to `faults`.
    pub(crate) fn read(section: &Section<'_>, name: &str, faults: &mut Faults) -> Self {
        let key = section.string("key", faults);
        if key.as_deref() == Some("") {
            faults.push(section.fault("key", "is empty"));
        }
        let on_failure = section.choice("on_failure", &["open", "closed"], faults);
        let limits = Duration::from_millis(1)..=Duration::from_secs(60);
        let answer_within = section.duration("answer_within", limits, faults);
        Self {
            redis: Settings::read(section, faults),
            key: key.unwrap_or_else(|| format!("interline:rate:{name}")),
            closed: on_failure == Some("closed"),
            answer_within: answer_within.unwrap_or(Duration::from_millis(100)),
        }
    }
}

/// Why nothing may start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NoTurn {
    /// More would start than may.
    Limited(RateLimited),
    /// Redis does not answer, and is asked to have nothing started then.
    Unknown(String),
}

impl fmt::Display for NoTurn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Limited(limited) => limited.fmt(f),
            Self::Unknown(why) => write!(f, "the shared rate is not known: {why}"),
        }
    }
}

/// A turn, and who gave it.
#[derive(Debug)]
pub(crate) enum Granted<'l> {
    Alone(Turn<'l>),
    ByServer(SharedTurn),
}

/// A rate that many processes keep together: each turn is one script on the server, by its clock. A
/// turn that is not made use of goes back, also one that comes when nobody waits for it any more; it is lost
/// only where the server cannot be told.
pub(crate) struct SharedRateLimiter {
    returns: Arc<Returns>,
    settings: SharedRateSettings,
    /// Keeps the rate alone while the server does not answer.
    alone: RateLimiter,
    failing: AtomicBool,
}

impl SharedRateLimiter {
    /// At most `count` in each `per`, of which `burst` at once; nobody waits longer than `longest`.
    /// Connects to nothing yet.
    pub(crate) fn new(
        settings: SharedRateSettings,
        count: u32,
        per: Duration,
        burst: u32,
        longest: Duration,
    ) -> Self {
        Self {
            returns: Returns::new(
                Link::new(settings.redis.clone()),
                Rate::new(count, per, burst, longest),
                settings.key.clone(),
            ),
            alone: RateLimiter::new(count, per).with_burst(burst),
            failing: AtomicBool::new(false),
            settings,
        }
    }

    /// Waits for a turn, but not beyond `deadline`: who would have to is refused at once.
    pub(crate) async fn turn_by(&self, deadline: Instant) -> Result<Granted<'_>, NoTurn> {
        let now = Instant::now();
        // The answer may come at the deadline, but not much later.
        let answer = now + self.settings.answer_within;
        let wait = deadline.saturating_duration_since(now);
        let asked = self.ask(wait, answer).await;
        self.tell(asked.as_ref().err());
        match asked {
            Ok(Ok(delay)) => {
                let turn = SharedTurn::new(&self.returns);
                // A timer takes up to a millisecond even where there is nothing to wait for.
                if !delay.is_zero() {
                    sleep(delay).await;
                }
                Ok(Granted::ByServer(turn))
            }
            Ok(Err(limited)) => Err(NoTurn::Limited(limited)),
            Err(why) if self.settings.closed => Err(NoTurn::Unknown(why)),
            Err(_) => {
                let alone = self.alone.turn_by(deadline.max(Instant::now())).await;
                alone.map(Granted::Alone).map_err(NoTurn::Limited)
            }
        }
    }

    async fn ask(
        &self,
        wait: Duration,
        answer: Instant,
    ) -> Result<Result<Duration, RateLimited>, String> {
        let mut asking = Asking::new(&self.returns, wait);
        if let Ok(said) = timeout_at(answer, &mut asking).await {
            return said;
        }
        // What starts all the same has its turn, should it still come.
        if !self.settings.closed {
            asking.forget();
        }
        let within = self.settings.answer_within.as_millis();
        Err(format!("Redis did not answer within {within} ms"))
    }

    /// Tells the log when the server stops answering, and when it answers again.
    fn tell(&self, failure: Option<&String>) {
        let key = &*self.settings.key;
        let failing = failure.is_some();
        if self.failing.swap(failing, Ordering::Relaxed) == failing {
            return;
        }
        match failure {
            Some(error) if self.settings.closed => {
                tracing::warn!(key, error, "shared rate not known; nothing starts");
            }
            Some(error) => {
                tracing::warn!(key, error, "shared rate not known; kept alone for now");
            }
            None => tracing::info!(key, "shared rate is known again"),
        }
    }
}

impl fmt::Debug for SharedRateLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedRateLimiter")
            .field("key", &self.settings.key)
            .finish_non_exhaustive()
    }
}
