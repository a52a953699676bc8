//! One turn, in one script on the server.

use std::sync::LazyLock;
use std::time::Duration;

use redis::Script;

use crate::redis::{Connection, Failure};

use super::super::RateLimited;

/// The generic cell rate algorithm by the server's clock, in microseconds.
///
/// Key: when the next would start if everything had kept its interval. Arguments: interval, burst, how
/// long the caller would wait, how long any caller would. Gives whether it has a turn, and in how long it is or would be.
static TURN: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local interval, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local wait, longest = tonumber(ARGV[3]), tonumber(ARGV[4])
local due = tonumber(redis.call('GET', KEYS[1]) or '0') or 0
if due < now then due = now end
-- Further ahead than any turn of this rate can be: of a slower rate before, or of a clock that went back.
if due > now + burst + longest + interval then due = now end
local start = due - burst
if start < now then start = now end
if start - now > wait then return {0, start - now} end
due = due + interval
redis.call('SET', KEYS[1], string.format('%.0f', due), 'PX', math.ceil((due - now) / 1000))
return {1, start - now}
",
    )
});

/// Takes back turns that nobody made use of: the next one is as much sooner.
///
/// Key: as above. Arguments: interval, how many.
static BACK: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local due = tonumber(redis.call('GET', KEYS[1]) or '0') or 0
due = due - tonumber(ARGV[1]) * tonumber(ARGV[2])
if due <= now then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], string.format('%.0f', due), 'PX', math.ceil((due - now) / 1000))
end
return 0
",
    )
});

/// A rate as the script takes it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    interval: u64,
    burst: u64,
    /// The longest that anybody waits.
    longest: u64,
}

impl Rate {
    pub(super) fn new(count: u32, per: Duration, burst: u32, longest: Duration) -> Self {
        let interval = micros(per / count.max(1)).max(1);
        Self {
            interval,
            burst: interval.saturating_mul(u64::from(burst.max(1) - 1)),
            longest: micros(longest),
        }
    }

    /// In how long the turn is that the caller now has; what stands against it otherwise.
    pub(super) async fn ask(
        &self,
        connection: &Connection,
        key: &str,
        wait: Duration,
    ) -> Result<Result<Duration, RateLimited>, Failure> {
        let mut script = TURN.key(key);
        let wait = micros(wait);
        script.arg(self.interval).arg(self.burst);
        script.arg(wait).arg(self.longest.max(wait));
        let (admitted, delay): (u8, u64) =
            connection.run(&format!("rate `{key}`"), &script).await?;
        let delay = Duration::from_micros(delay);
        Ok(match admitted {
            1 => Ok(delay),
            _ => Err(RateLimited { retry_after: delay }),
        })
    }
}

impl Rate {
    /// Takes back so many turns.
    pub(super) async fn put(
        &self,
        connection: &Connection,
        key: &str,
        count: u32,
    ) -> Result<(), Failure> {
        let mut script = BACK.key(key);
        script.arg(self.interval).arg(count);
        let _: u8 = connection.run(&format!("rate `{key}`"), &script).await?;
        Ok(())
    }
}

/// No more than a number of Lua holds exactly.
fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).map_or(1 << 51, |micros| micros.min(1 << 51))
}
