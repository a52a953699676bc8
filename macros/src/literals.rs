//! The texts that stand for durations, rates, topics and names.

use std::time::Duration;

/// Longest topic, in bytes; the runtime's own limit.
const TOPIC_BYTES_MAX: usize = 249;

const DURATION_HELP: &str =
    "write a number and a unit: ms, s, m, h or d, for example \"250ms\", \"10s\" or \"1m30s\"";

/// What is wrong with a text, and what to write.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Flaw {
    pub(crate) what: String,
    pub(crate) help: String,
}

impl Flaw {
    fn new(what: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            help: help.into(),
        }
    }
}

/// Reads a duration such as `250ms`, `10s` or `1m30s`; more than zero.
pub(crate) fn duration(text: &str) -> Result<Duration, Flaw> {
    let total = duration_or_zero(text)?;
    if total.is_zero() {
        return Err(Flaw::new(
            format!("`{text}` is no time at all"),
            "write a duration greater than zero, for example \"250ms\"",
        ));
    }
    Ok(total)
}

fn duration_or_zero(text: &str) -> Result<Duration, Flaw> {
    let not_one = || Flaw::new(format!("`{text}` is not a duration"), DURATION_HELP);
    let too_long = || Flaw::new(format!("`{text}` is too long"), "at most 100 years");
    let mut rest = text.trim();
    let mut millis: u64 = 0;
    if rest.is_empty() {
        return Err(not_one());
    }
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, after) = rest.split_at(digits);
        if number.is_empty() {
            return Err(not_one());
        }
        let after = after.trim_start();
        let letters = after.len()
            - after
                .trim_start_matches(|c: char| c.is_ascii_alphabetic())
                .len();
        let (unit, after) = after.split_at(letters);
        let factor: u64 = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(not_one()),
        };
        millis = number
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(factor))
            .and_then(|part| millis.checked_add(part))
            .ok_or_else(too_long)?;
        rest = after.trim_start();
    }
    if millis > 100 * 366 * 86_400_000 {
        return Err(too_long());
    }
    Ok(Duration::from_millis(millis))
}

/// Reads a rate such as `100/s` or `5/250ms`.
pub(crate) fn rate(text: &str) -> Result<(u32, Duration), Flaw> {
    let flaw = || {
        Flaw::new(
            format!("`{text}` is not a rate"),
            "write how many in which time, for example \"100/s\", \"10/m\" or \"5/250ms\"",
        )
    };
    let (count, per) = text.split_once('/').ok_or_else(flaw)?;
    let count = count.trim().parse::<u32>().map_err(|_| flaw())?;
    let per = per.trim();
    let per = if per.starts_with(|c: char| c.is_ascii_digit()) {
        duration(per)
    } else {
        duration(&format!("1{per}"))
    };
    let per = per.map_err(|_| flaw())?;
    if count == 0 {
        return Err(Flaw::new(
            format!("the rate `{text}` lets nothing through"),
            "write at least 1, for example \"1/s\"",
        ));
    }
    Ok((count, per))
}

/// Checks a topic and gives the names of its placeholders.
pub(crate) fn topic(text: &str) -> Result<Vec<String>, Flaw> {
    if text.is_empty() {
        return Err(Flaw::new(
            "a topic cannot be empty",
            "write for example `topic = \"orders.placed\"`",
        ));
    }
    if text.len() > TOPIC_BYTES_MAX {
        return Err(Flaw::new(
            format!("the topic has {} bytes", text.len()),
            format!("at most {TOPIC_BYTES_MAX} are allowed"),
        ));
    }
    let mut fields = Vec::new();
    for segment in split_segments(text) {
        if segment.is_empty() {
            return Err(Flaw::new(
                format!("topic `{text}` has an empty segment"),
                "segments are separated by single dots, for example `orders.placed`",
            ));
        }
        let braces = segment.contains(['{', '}']);
        let inner = segment
            .strip_prefix('{')
            .and_then(|rest| rest.strip_suffix('}'));
        match inner {
            Some(field) if !field.is_empty() && !field.contains(['{', '}', '.']) => {
                fields.push(field.to_owned());
                check_characters(text, field)?;
            }
            _ if braces => {
                return Err(Flaw::new(
                    format!("`{segment}` in topic `{text}` is not a placeholder"),
                    "a placeholder is a whole segment, for example `orders.{region}.placed`",
                ));
            }
            _ => check_characters(text, segment)?,
        }
    }
    Ok(fields)
}

/// Splits at the dots outside of braces.
fn split_segments(text: &str) -> impl Iterator<Item = &str> {
    let mut open = false;
    text.split(move |character| {
        match character {
            '{' => open = true,
            '}' => open = false,
            _ => {}
        }
        character == '.' && !open
    })
}

fn check_characters(topic: &str, segment: &str) -> Result<(), Flaw> {
    match segment.chars().find(|character| !is_plain(*character)) {
        None => Ok(()),
        Some(bad) => Err(Flaw::new(
            format!("topic `{topic}` holds `{bad}`"),
            "only letters, digits, `-` and `_` are allowed, and dots between segments",
        )),
    }
}

/// Checks a name: of a service, group, broker or subscriber. Dots are allowed inside.
pub(crate) fn name(text: &str) -> Result<(), Flaw> {
    if text.is_empty() {
        return Err(Flaw::new(
            "a name cannot be empty",
            "write for example \"billing\"",
        ));
    }
    if text.len() > TOPIC_BYTES_MAX {
        return Err(Flaw::new(
            format!("the name has {} bytes", text.len()),
            format!("at most {TOPIC_BYTES_MAX} are allowed"),
        ));
    }
    let bad = text
        .chars()
        .find(|character| !is_plain(*character) && *character != '.');
    if let Some(bad) = bad {
        return Err(Flaw::new(
            format!("the name `{text}` holds `{bad}`"),
            "only letters, digits, `-`, `_` and dots are allowed",
        ));
    }
    if text.split('.').any(str::is_empty) {
        return Err(Flaw::new(
            format!("the name `{text}` has nothing before, between or after its dots"),
            "write for example \"billing\" or \"shop.billing\"",
        ));
    }
    Ok(())
}

fn is_plain(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '-' || character == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        let cases = [
            ("250ms", 250),
            ("10s", 10_000),
            ("1m30s", 90_000),
            ("1m 30s", 90_000),
            ("2 h", 7_200_000),
            ("1d", 86_400_000),
        ];
        for (text, millis) in cases {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "10", "s", "10q", "2,5s", "-1s", "1.5s", "10sec"] {
            let flaw = duration(text).expect_err(text);
            assert_eq!(flaw.what, format!("`{text}` is not a duration"));
        }
        assert_eq!(
            duration("0s").expect_err("zero").what,
            "`0s` is no time at all"
        );
        for text in ["99999999999999999999s", "18446744073709551615h", "101000d"] {
            let flaw = duration(text).expect_err(text);
            assert_eq!(flaw.what, format!("`{text}` is too long"));
        }
    }

    #[test]
    fn rates_are_a_count_in_a_time() {
        assert_eq!(rate("100/s"), Ok((100, Duration::from_secs(1))));
        assert_eq!(rate("5 / 250ms"), Ok((5, Duration::from_millis(250))));
        for text in ["100", "/s", "x/s", "100/", "100/q", "-1/s", "99999999999/s"] {
            assert_eq!(
                rate(text).expect_err(text).what,
                format!("`{text}` is not a rate")
            );
        }
        assert_eq!(
            rate("0/s").expect_err("zero").what,
            "the rate `0/s` lets nothing through"
        );
    }

    #[test]
    fn topics_are_checked_and_their_placeholders_found() {
        assert_eq!(topic("orders.placed"), Ok(vec![]));
        assert_eq!(
            topic("o.{a}.{b_c}"),
            Ok(vec!["a".to_owned(), "b_c".to_owned()])
        );
        let cases = [
            ("", "a topic cannot be empty"),
            ("a..b", "topic `a..b` has an empty segment"),
            (".a", "topic `.a` has an empty segment"),
            ("a.", "topic `a.` has an empty segment"),
            ("a b", "topic `a b` holds ` `"),
            ("a.#", "topic `a.#` holds `#`"),
            ("a.é", "topic `a.é` holds `é`"),
            ("a.{b", "`{b` in topic `a.{b` is not a placeholder"),
            ("a.b}", "`b}` in topic `a.b}` is not a placeholder"),
            ("a.{}", "`{}` in topic `a.{}` is not a placeholder"),
            ("a.x{b}", "`x{b}` in topic `a.x{b}` is not a placeholder"),
            ("a.{b.c}", "`{b.c}` in topic `a.{b.c}` is not a placeholder"),
            ("a.{b c}", "topic `a.{b c}` holds ` `"),
        ];
        for (text, wanted) in cases {
            assert_eq!(topic(text).expect_err(text).what, wanted);
        }
        let long = "x".repeat(250);
        assert_eq!(
            topic(&long).expect_err("long").what,
            "the topic has 250 bytes"
        );
    }

    #[test]
    fn names_may_have_dots_inside() {
        assert_eq!(name("shop.billing-2_x"), Ok(()));
        for text in ["", "a b", "a/b", ".a", "a.", "a..b", "ä"] {
            assert!(name(text).is_err(), "{text}");
        }
        assert!(name(&"x".repeat(250)).is_err());
    }
}
