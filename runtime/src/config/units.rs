use std::fmt;
use std::time::Duration;

const DURATION_UNITS: &[(&str, u128)] = &[
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60 * 1_000_000_000),
    ("h", 3_600 * 1_000_000_000),
    ("d", 86_400 * 1_000_000_000),
];

const SIZE_UNITS: &[(&str, u128)] = &[
    ("b", 1),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
];

/// Reads a duration as people write it: `250ms`, `10s`, `1.5s`, `1m30s`, `1d`.
///
/// The units are `ns`, `us`, `ms`, `s`, `m`, `h` and `d`; a number without one is a mistake. The
/// error continues a sentence that begins with the bad text.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err("is empty; write a duration such as `250ms`, `10s` or `1m30s`".to_owned());
    }
    let mut nanoseconds: u128 = 0;
    let mut smallest_unit = u128::MAX;
    while !rest.is_empty() {
        let (number, unit, tail) = part(rest);
        rest = tail;
        if number.is_empty() {
            return Err("is not a duration such as `250ms`, `10s` or `1m30s`".to_owned());
        }
        if unit.is_empty() {
            return Err(format!(
                "has a number without a unit; write `{number}s` or `{number}ms`"
            ));
        }
        let Some((_, scale)) = DURATION_UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(format!(
                "has the unknown unit `{unit}`; the units are ns, us, ms, s, m, h and d"
            ));
        };
        if *scale >= smallest_unit {
            return Err("must have its units from large to small, each once, as in `1m30s`".into());
        }
        smallest_unit = *scale;
        let amount = scaled(number, *scale)
            .ok_or_else(|| format!("has `{number}{unit}`, which is not a number of nanoseconds"))?;
        nanoseconds = nanoseconds.saturating_add(amount);
    }
    u64::try_from(nanoseconds)
        .map(Duration::from_nanos)
        .map_err(|_| "is longer than 500 years".to_owned())
}

/// Reads a size in bytes as people write it: `512B`, `64KiB`, `10MB`.
///
/// `KB`, `MB`, `GB`, `TB` are powers of 1000, `KiB`, `MiB`, `GiB`, `TiB` powers of 1024, in any
/// case; a plain number is bytes. The error continues a sentence that begins with the bad text.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let (number, unit, rest) = part(text);
    if number.is_empty() || !rest.is_empty() {
        return Err("is not a size such as `512B`, `64KiB` or `10MB`".to_owned());
    }
    let folded = unit.to_ascii_lowercase();
    let scale = match folded.as_str() {
        "" => 1,
        "k" | "m" | "g" | "t" => {
            let letter = folded.to_ascii_uppercase();
            return Err(format!(
                "is ambiguous; write `{number}{letter}iB` (powers of 1024) or `{number}{letter}B` \
                 (powers of 1000)"
            ));
        }
        other => match SIZE_UNITS.iter().find(|(name, _)| *name == other) {
            Some((_, scale)) => *scale,
            None => {
                return Err(format!(
                    "has the unknown unit `{unit}`; the units are B, KB, MB, GB, TB, KiB, MiB, \
                     GiB and TiB"
                ));
            }
        },
    };
    let bytes = scaled(number, scale).ok_or("is not a whole number of bytes")?;
    u64::try_from(bytes).map_err(|_| "is more than 16 EiB".to_owned())
}

/// A duration as it is written in a configuration, exactly: `1m30s`, `250ms`, `0s`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct HumanDuration(pub(crate) Duration);

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: [(&str, u128); 7] = [
            ("d", 86_400 * 1_000_000_000),
            ("h", 3_600 * 1_000_000_000),
            ("m", 60 * 1_000_000_000),
            ("s", 1_000_000_000),
            ("ms", 1_000_000),
            ("us", 1_000),
            ("ns", 1),
        ];
        let mut rest = self.0.as_nanos();
        if rest == 0 {
            return f.write_str("0s");
        }
        for (unit, scale) in SHOWN {
            if rest >= scale {
                write!(f, "{}{unit}", rest / scale)?;
                rest %= scale;
            }
        }
        Ok(())
    }
}

/// Splits off one number and the unit behind it.
fn part(text: &str) -> (&str, &str, &str) {
    let is_number = |c: char| c.is_ascii_digit() || c == '.' || c == '_';
    let unit_start = text.find(|c| !is_number(c)).unwrap_or(text.len());
    let (number, tail) = text.split_at(unit_start);
    let spaced = tail.trim_start();
    let unit_end = spaced
        .find(|c: char| !c.is_alphabetic())
        .unwrap_or(spaced.len());
    let (unit, rest) = spaced.split_at(unit_end);
    (number, unit, rest.trim_start())
}

/// `number * scale`, where `number` may have a fraction: exact, or nothing.
fn scaled(number: &str, scale: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| {
        let digits = text.replace('_', "");
        let valid = !digits.is_empty() && digits.len() <= 20;
        valid.then(|| digits.parse::<u128>().ok()).flatten()
    };
    let fraction_digits = u32::try_from(fraction.replace('_', "").len()).ok()?;
    let parts = 10_u128.checked_pow(fraction_digits)?;
    let fraction = digits(fraction)?.checked_mul(scale)?;
    if fraction % parts != 0 {
        return None;
    }
    digits(whole)?
        .checked_mul(scale)?
        .checked_add(fraction / parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        let cases = [
            ("0s", Duration::ZERO),
            ("100ns", Duration::from_nanos(100)),
            ("7us", Duration::from_micros(7)),
            ("7µs", Duration::from_micros(7)),
            ("250ms", Duration::from_millis(250)),
            ("10s", Duration::from_secs(10)),
            (" 10 s ", Duration::from_secs(10)),
            ("1.5s", Duration::from_millis(1500)),
            ("2m", Duration::from_secs(120)),
            ("1m30s", Duration::from_secs(90)),
            ("1h 5m", Duration::from_secs(3900)),
            ("1d", Duration::from_secs(86_400)),
            ("10_000ms", Duration::from_secs(10)),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_duration(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_bad_duration_says_what_to_write() {
        let cases = [
            (
                "",
                "is empty; write a duration such as `250ms`, `10s` or `1m30s`",
            ),
            ("30", "has a number without a unit; write `30s` or `30ms`"),
            ("1m30", "has a number without a unit; write `30s` or `30ms`"),
            (
                "10S",
                "has the unknown unit `S`; the units are ns, us, ms, s, m, h and d",
            ),
            (
                "ten seconds",
                "is not a duration such as `250ms`, `10s` or `1m30s`",
            ),
            ("-5s", "is not a duration such as `250ms`, `10s` or `1m30s`"),
            (
                "5s1m",
                "must have its units from large to small, each once, as in `1m30s`",
            ),
            (
                "1s1s",
                "must have its units from large to small, each once, as in `1m30s`",
            ),
            ("0.5ns", "has `0.5ns`, which is not a number of nanoseconds"),
            ("1..5s", "has `1..5s`, which is not a number of nanoseconds"),
            (
                "99999999999999999999999s",
                "has `99999999999999999999999s`, which is not a number of nanoseconds",
            ),
            ("900000d", "is longer than 500 years"),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_duration(text), Err(expected.to_owned()), "{text}");
        }
    }

    #[test]
    fn what_is_shown_is_read_back() {
        for (nanoseconds, shown) in [
            (0, "0s"),
            (250_000_000, "250ms"),
            (90_000_000_000, "1m30s"),
            (86_400_000_000_000, "1d"),
            (1_001_001_001, "1s1ms1us1ns"),
            (u64::MAX, "213503d23h34m33s709ms551us615ns"),
        ] {
            let duration = Duration::from_nanos(nanoseconds);
            assert_eq!(HumanDuration(duration).to_string(), shown);
            assert_eq!(parse_duration(shown), Ok(duration), "{shown}");
        }
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        let cases = [
            ("512", 512),
            ("512B", 512),
            ("64KiB", 65_536),
            ("64kib", 65_536),
            ("10MB", 10_000_000),
            ("10 mb", 10_000_000),
            ("1.5MiB", 1_572_864),
            ("2GiB", 2 << 30),
            ("1TB", 1_000_000_000_000),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_size(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_bad_size_says_what_to_write() {
        let cases = [
            ("", "is not a size such as `512B`, `64KiB` or `10MB`"),
            ("big", "is not a size such as `512B`, `64KiB` or `10MB`"),
            ("1MB2KB", "is not a size such as `512B`, `64KiB` or `10MB`"),
            (
                "10M",
                "is ambiguous; write `10MiB` (powers of 1024) or `10MB` (powers of 1000)",
            ),
            (
                "10mil",
                "has the unknown unit `mil`; the units are B, KB, MB, GB, TB, KiB, MiB, GiB and TiB",
            ),
            ("0.1MiB", "is not a whole number of bytes"),
            ("99999999999TiB", "is more than 16 EiB"),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_size(text), Err(expected.to_owned()), "{text}");
        }
    }
}
