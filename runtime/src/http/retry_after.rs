//! `Retry-After`: for how long a server wants to be left alone.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderMap;
use http::header::{DATE, RETRY_AFTER};

/// Longer waits are taken for this.
const LONGEST: Duration = Duration::from_secs(86_400);

/// Reads `Retry-After`: seconds, or a date, which is counted from the server's own `Date` where it
/// has one, since clocks differ.
pub(super) fn read(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds).min(LONGEST));
    }
    let until = date(text)?;
    let theirs = headers
        .get(DATE)
        .and_then(|value| date(value.to_str().ok()?));
    let from = theirs.unwrap_or(now);
    Some(until.duration_since(from).unwrap_or_default().min(LONGEST))
}

/// Reads a date of the form that HTTP asks for: `Sun, 06 Nov 1994 08:49:37 GMT`.
fn date(text: &str) -> Option<SystemTime> {
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let mut parts = text.split_once(", ")?.1.split(' ');
    let day: i64 = parts.next()?.parse().ok()?;
    let month = parts.next().filter(|name| name.len() == 3)?;
    // A match that straddles two names is none.
    let month = MONTHS.find(month).filter(|at| at % 3 == 0)?;
    let month = i64::try_from(month).ok()? / 3 + 1;
    let year: i64 = parts.next()?.parse().ok()?;
    let mut clock = parts.next()?.split(':').map(str::parse::<i64>);
    let (hour, minute, second) = (
        clock.next()?.ok()?,
        clock.next()?.ok()?,
        clock.next()?.ok()?,
    );
    let fits = (1..=31).contains(&day)
        && (1970..10_000).contains(&year)
        && (0..24).contains(&hour)
        && (0..60).contains(&minute)
        && (0..=60).contains(&second)
        && parts.next() == Some("GMT");
    if !fits {
        return None;
    }
    // Days since the epoch, by years that begin in March, so that a leap day is the last of its year.
    let (y, m) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719_468;
    let seconds = days * 86_400 + hour * 3_600 + minute * 60 + second;
    Some(UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(http::HeaderName, &'static str)]) -> HeaderMap {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| (name.clone(), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (text, seconds) in [
            ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
            ("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_777),
            ("Tue, 29 Feb 2000 23:59:59 GMT", 951_868_799),
            ("Wed, 25 Nov 2026 12:00:00 GMT", 1_795_608_000),
        ] {
            let expected = UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(date(text), Some(expected), "{text}");
        }
        for text in [
            "",
            "Sun, 06 Nov 1994 08:49:37 CET",
            "Sun, 06 anF 1994 08:49:37 GMT",
            "Sun, 46 Nov 1994 08:49:37 GMT",
            "06 Nov 1994 08:49:37 GMT",
        ] {
            assert_eq!(date(text), None, "{text}");
        }
    }

    #[test]
    fn seconds_and_dates_are_understood() {
        let now = UNIX_EPOCH + Duration::from_secs(784_111_000);
        let s = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(read(&headers(&[(RETRY_AFTER, "120")]), now), s(120));
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(read(&headers(&[(RETRY_AFTER, date)]), now), s(777));
        // The server's clock is ten minutes ahead of ours.
        let theirs = (DATE, "Sun, 06 Nov 1994 08:49:30 GMT");
        assert_eq!(read(&headers(&[(RETRY_AFTER, date), theirs]), now), s(7));
        let past = UNIX_EPOCH + Duration::from_secs(900_000_000);
        assert_eq!(read(&headers(&[(RETRY_AFTER, date)]), past), s(0));
        assert_eq!(read(&headers(&[(RETRY_AFTER, "soon")]), now), None);
        assert_eq!(read(&HeaderMap::new(), now), None);
        assert_eq!(
            read(&headers(&[(RETRY_AFTER, "99999999")]), now),
            Some(LONGEST)
        );
    }
}
