//! Mistakes are collected, so that all of an item are reported at once, and the item survives them.

use proc_macro2::{Span, TokenStream};
use quote::ToTokens;

/// The mistakes that were found in one item.
#[derive(Debug, Default)]
pub(crate) struct Errors(Vec<syn::Error>);

impl Errors {
    /// Adds a mistake at `tokens`: what is wrong, and what to write.
    pub(crate) fn at(
        &mut self,
        tokens: impl ToTokens,
        what: impl AsRef<str>,
        help: impl AsRef<str>,
    ) {
        let text = with_help(what.as_ref(), help.as_ref());
        self.0.push(syn::Error::new_spanned(tokens, text));
    }

    /// Adds a mistake at `span`: what is wrong, and what to write.
    pub(crate) fn at_span(&mut self, span: Span, what: impl AsRef<str>, help: impl AsRef<str>) {
        let text = with_help(what.as_ref(), help.as_ref());
        self.0.push(syn::Error::new(span, text));
    }

    /// Adds what a parser found.
    pub(crate) fn push(&mut self, error: syn::Error) {
        self.0.push(error);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// The mistakes as errors of the compiler.
    pub(crate) fn into_tokens(self) -> TokenStream {
        self.0.iter().map(syn::Error::to_compile_error).collect()
    }

    #[cfg(test)]
    pub(crate) fn texts(&self) -> Vec<String> {
        self.0.iter().map(ToString::to_string).collect()
    }
}

fn with_help(what: &str, help: &str) -> String {
    if help.is_empty() {
        what.to_owned()
    } else {
        format!("{what}\n  help: {help}")
    }
}

/// Which of `known` somebody who wrote `word` may have meant.
pub(crate) fn suggestion<'k>(
    word: &str,
    known: impl IntoIterator<Item = &'k str>,
) -> Option<&'k str> {
    let near = |candidate: &&str| {
        // A longer word may hold more slips; a short one soon becomes another word.
        let limit = (word.chars().count().max(candidate.chars().count()) / 3).max(1);
        distance(word, candidate) <= limit
            || (word.len() >= 4 && (candidate.starts_with(word) || word.starts_with(candidate)))
    };
    known
        .into_iter()
        .filter(near)
        .min_by_key(|candidate| distance(word, candidate))
}

/// How many characters must be changed, added, removed or swapped with their neighbour.
fn distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.chars().collect();
    let right: Vec<char> = right.chars().collect();
    let mut before_last = vec![0; right.len() + 1];
    let mut last: Vec<usize> = (0..=right.len()).collect();
    for (row, a) in left.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, b) in right.iter().enumerate() {
            let changed = last[column] + usize::from(a != b);
            let mut best = changed.min(last[column + 1] + 1).min(current[column] + 1);
            let swapped = row > 0 && column > 0 && *a == right[column - 1] && left[row - 1] == *b;
            if swapped {
                best = best.min(before_last[column - 1] + 1);
            }
            current.push(best);
        }
        before_last = last;
        last = current;
    }
    last[right.len()]
}

/// ``"`a`, `b` and `c`"``.
pub(crate) fn list<'w>(words: impl IntoIterator<Item = &'w str>) -> String {
    let quoted: Vec<_> = words.into_iter().map(|word| format!("`{word}`")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised_and_other_words_are_not() {
        let known = ["concurrency", "timeout", "retry", "group", "ack", "name"];
        let cases = [
            ("concurency", Some("concurrency")),
            ("concurrent", Some("concurrency")),
            ("timout", Some("timeout")),
            ("retyr", Some("retry")),
            ("acks", Some("ack")),
            ("worker", None),
            ("x", None),
        ];
        for (word, wanted) in cases {
            assert_eq!(suggestion(word, known), wanted, "{word}");
        }
    }

    #[test]
    fn lists_read_as_sentences() {
        assert_eq!(list([]), "");
        assert_eq!(list(["a"]), "`a`");
        assert_eq!(list(["a", "b", "c"]), "`a`, `b` and `c`");
    }
}
