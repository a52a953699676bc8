//! What limits and repeats say together: what has no effect beside the rest is a mistake.

use std::time::Duration;

use proc_macro2::TokenStream;

use crate::args::Args;
use crate::diagnostics::Errors;

/// The limits and repeats that one item names.
#[derive(Clone, Default)]
pub(super) struct Limits {
    pub(super) timeout: Option<Given>,
    pub(super) attempt_timeout: Option<Given>,
    pub(super) retry: Args,
}

/// A duration, with where it stands.
#[derive(Clone)]
pub(super) struct Given {
    pub(super) duration: Duration,
    pub(super) tokens: TokenStream,
}

impl Limits {
    /// Those of a trait.
    pub(super) fn of_trait(args: &Args) -> Self {
        let given = |key| {
            Some(Given {
                duration: args.duration(key)?,
                tokens: args.get(key)?.tokens.clone(),
            })
        };
        Self {
            timeout: given("timeout"),
            attempt_timeout: given("attempt_timeout"),
            retry: args.group("retry").cloned().unwrap_or_default(),
        }
    }

    /// Notes what is said here and has no effect beside the rest, of which some may be said `below`, by
    /// the trait of a method. What only that says is its own business: a method may well be shorter, or
    /// have one attempt.
    pub(super) fn check(&self, below: &Self, errors: &mut Errors) {
        self.check_attempt(below, errors);
        self.check_waits(below, errors);
        self.check_repeats(below, errors);
    }

    fn check_attempt(&self, below: &Self, errors: &mut Errors) {
        let timeout = self.timeout.as_ref().or(below.timeout.as_ref());
        let (Some(attempt), Some(timeout)) = (&self.attempt_timeout, timeout) else {
            return;
        };
        if attempt.duration >= timeout.duration {
            let whole = shown(timeout.duration);
            errors.at(
                &attempt.tokens,
                format!("the whole call may take {whole}, so this limits no attempt"),
                format!("write less than \"{whole}\", or leave it out"),
            );
        }
    }

    fn check_waits(&self, below: &Self, errors: &mut Errors) {
        let longest = self.duration("max").or_else(|| below.duration("max"));
        let (Some(first), Some(longest)) = (self.retry.get("first"), longest) else {
            return;
        };
        if self.duration("first").is_some_and(|first| first > longest) {
            let longest = shown(longest);
            errors.at(
                &first.tokens,
                format!(
                    "no wait is longer than `max`, which is {longest}, so the first is not either"
                ),
                format!("write at most \"{longest}\", or a longer `max`"),
            );
        }
    }

    fn check_repeats(&self, below: &Self, errors: &mut Errors) {
        let attempts = self.retry.number("attempts");
        let attempts = attempts.or_else(|| below.retry.number("attempts"));
        let of_repeats = ["hedge", "hedge_percentile", "first", "max", "jitter"];
        if attempts == Some(1) {
            // One mistake, however many of them there are.
            if let Some(entry) = of_repeats.into_iter().find_map(|key| self.retry.get(key)) {
                errors.at(
                    &entry.key,
                    format!(
                        "`{}` says how a call is repeated, and it has one attempt",
                        entry.key
                    ),
                    "write `attempts = 2` or more, or leave it out",
                );
            }
            return;
        }
        let ends = [
            (&self.attempt_timeout, "attempt"),
            (&below.attempt_timeout, "attempt"),
            (&self.timeout, "call"),
            (&below.timeout, "call"),
        ];
        let end = ends
            .into_iter()
            .find_map(|(given, what)| Some((given.as_ref()?.duration, what)));
        if let (Some(entry), Some(hedge), Some((end, what))) =
            (self.retry.get("hedge"), self.duration("hedge"), end)
            && hedge >= end
        {
            let end = shown(end);
            errors.at(
                &entry.tokens,
                format!("the {what} is over after {end}, so no second request is ever sent"),
                format!("write less than \"{end}\", or leave out `hedge`"),
            );
        }
    }

    fn duration(&self, key: &str) -> Option<Duration> {
        self.retry.duration(key)
    }
}

/// A duration as it is written.
fn shown(duration: Duration) -> String {
    match duration.as_millis() {
        millis if millis % 1_000 == 0 => format!("{}s", millis / 1_000),
        millis => format!("{millis}ms"),
    }
}
