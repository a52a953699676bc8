//! What the limits and repeats of a service say together: what has no effect beside the rest is likely a mistake.

use std::time::Duration;

use crate::config::{Faults, Section};

use super::options::CallSettings;

/// Notes what the section says that has no effect beside the rest of it, and beside what is said `below`,
/// for all methods. What only that says is its own business: one method may well be shorter, or have one
/// attempt.
pub(super) fn check(
    section: &Section<'_>,
    said: &CallSettings,
    below: &CallSettings,
    faults: &mut Faults,
) {
    let timeout = said.timeout.or(below.timeout);
    if let (Some(attempt), Some(timeout)) = (said.attempt_timeout, timeout)
        && attempt >= timeout
    {
        let message = format!("limits nothing: the whole call may take {}", shown(timeout));
        let fault = section.fault("attempt_timeout", message);
        faults.push(fault.with_help("write less than `timeout`, or leave it out"));
    }
    check_waits(section, said, below, faults);
    check_hedge(section, said, below, faults);
}

fn check_waits(
    section: &Section<'_>,
    said: &CallSettings,
    below: &CallSettings,
    faults: &mut Faults,
) {
    let longest = said.retry.max.or(below.retry.max);
    if let (Some(first), Some(longest)) = (said.retry.first, longest)
        && first > longest
    {
        let longest = shown(longest);
        let message = format!("is longer than the longest of all waits, {longest} (`max`)");
        let retry = section.section("retry", faults);
        let help = format!("write at most `{longest}`, or a longer `max`");
        let fault = retry.fault("first", message);
        faults.push(fault.with_help(help));
    }
}

fn check_hedge(
    section: &Section<'_>,
    said: &CallSettings,
    below: &CallSettings,
    faults: &mut Faults,
) {
    let hedge = section.section("hedge", faults);
    let key = match said.retry {
        retry if retry.hedge.is_some() => "after",
        retry if retry.hedge_percentile.is_some() => "percentile",
        _ => return,
    };
    if said.retry.attempts.or(below.retry.attempts) == Some(1) {
        let message = "has no effect: a second request is a second attempt, and there is one";
        let fault = hedge.fault(key, message);
        faults.push(fault.with_help("write `retry.attempts = 2` or more, or leave it out"));
        return;
    }
    let attempt = said.attempt_timeout.or(below.attempt_timeout);
    let end = match (attempt, said.timeout.or(below.timeout)) {
        (Some(attempt), _) => Some((attempt, "attempt_timeout")),
        (None, Some(timeout)) => Some((timeout, "timeout")),
        (None, None) => None,
    };
    if let (Some(after), Some((end, limit))) = (said.retry.hedge, end)
        && after >= end
    {
        let end = shown(end);
        let message = format!("has no effect: the first request is given up after {end}");
        let fault = hedge.fault("after", message);
        faults.push(fault.with_help(format!("write less than `{limit}`, or leave it out")));
    }
}

/// A duration as it is written.
fn shown(duration: Duration) -> String {
    match duration.as_millis() {
        millis if millis % 1_000 == 0 => format!("{}s", millis / 1_000),
        millis => format!("{millis}ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::settings::read_said;
    use super::*;
    use crate::config::Config;

    /// What is wrong with a service whose method `item` may have lines of its own.
    fn faults(lines: &str) -> String {
        let toml = format!("[services.shop]\n{lines}");
        let config = Config::from_toml("interline.toml", &toml).unwrap();
        let mut faults = Faults::new();
        let section = config.section("services").section("shop", &mut faults);
        let methods = section.section("methods", &mut faults);
        let of_all = read_said(&section, &mut faults);
        check(&section, &of_all, &CallSettings::UNSET, &mut faults);
        let item = methods.section("item", &mut faults);
        let of_item = read_said(&item, &mut faults);
        check(&item, &of_item, &of_all, &mut faults);
        faults
            .into_result()
            .map_or_else(|error| error.to_string(), |_| String::new())
    }

    #[test]
    fn what_has_no_effect_is_a_mistake_at_its_key() {
        for (lines, key, what) in [
            (
                "timeout = \"1s\"\nattempt_timeout = \"1s\"",
                "services.shop.attempt_timeout",
                "limits nothing: the whole call may take 1s",
            ),
            (
                "retry.first = \"1s\"\nretry.max = \"250ms\"",
                "services.shop.retry.first",
                "is longer than the longest of all waits, 250ms (`max`)",
            ),
            (
                "retry.attempts = 1\nhedge.after = \"1s\"",
                "services.shop.hedge.after",
                "has no effect: a second request is a second attempt, and there is one",
            ),
            (
                "retry.attempts = 1\nhedge.percentile = 90",
                "services.shop.hedge.percentile",
                "has no effect: a second request is a second attempt, and there is one",
            ),
            (
                "timeout = \"3s\"\nattempt_timeout = \"1s\"\nhedge.after = \"1s\"",
                "services.shop.hedge.after",
                "has no effect: the first request is given up after 1s",
            ),
            (
                "timeout = \"3s\"\nmethods.item.hedge.after = \"3s\"",
                "services.shop.methods.item.hedge.after",
                "has no effect: the first request is given up after 3s",
            ),
            (
                "timeout = \"3s\"\nmethods.item.attempt_timeout = \"4s\"",
                "services.shop.methods.item.attempt_timeout",
                "limits nothing: the whole call may take 3s",
            ),
            (
                "retry.attempts = 1\nmethods.item.hedge.after = \"1s\"",
                "services.shop.methods.item.hedge.after",
                "has no effect: a second request is a second attempt, and there is one",
            ),
            (
                "retry.max = \"1s\"\nmethods.item.retry.first = \"2s\"",
                "services.shop.methods.item.retry.first",
                "is longer than the longest of all waits, 1s (`max`)",
            ),
        ] {
            let text = faults(lines);
            assert!(text.contains(key), "{lines}: {text}");
            assert!(text.contains(what), "{lines}: {text}");
            assert_eq!(text.matches("help:").count(), 1, "{lines}: {text}");
        }
    }

    #[test]
    fn one_method_may_differ_from_the_others() {
        for lines in [
            "timeout = \"1s\"\nattempt_timeout = \"999ms\"\nhedge.after = \"998ms\"",
            "retry.first = \"1s\"\nretry.max = \"1s\"\nretry.attempts = 2",
            "retry.first = \"1h\"",
            "retry.attempts = 1\nretry.first = \"1s\"",
            "timeout = \"4s\"\nattempt_timeout = \"2s\"\nmethods.item.timeout = \"1s\"",
            "hedge.after = \"1s\"\nmethods.item.retry.attempts = 1",
            "retry.first = \"1s\"\nmethods.item.retry.max = \"100ms\"",
            "retry.attempts = 1\nmethods.item.retry.attempts = 2\nmethods.item.hedge.after = \"1s\"",
        ] {
            assert_eq!(faults(lines), "", "{lines}");
        }
    }
}
