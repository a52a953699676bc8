//! The command line of a bench: words that choose, and numbers.

use std::collections::BTreeMap;

/// What was asked for.
///
/// ```
/// use interline_tests::asked::Asked;
///
/// let line = ["--bench", "kafka", "--rounds", "3"].map(str::to_owned);
/// let asked = Asked::read(line.into_iter(), &[("rounds", 5), ("part", 1)]).unwrap();
/// assert!(asked.includes("Kafka: consume") && !asked.includes("RabbitMQ: consume"));
/// assert_eq!((asked.number("rounds"), asked.number("part")), (3, 1));
/// ```
#[derive(Debug, Clone)]
pub struct Asked {
    words: Vec<String>,
    numbers: BTreeMap<&'static str, u64>,
}

impl Asked {
    /// Reads the arguments of a program; what cargo adds is left out. `numbers` are the options that
    /// there are, each with its default.
    ///
    /// # Errors
    ///
    /// What is wrong, in words.
    pub fn read(
        arguments: impl Iterator<Item = String>,
        numbers: &[(&'static str, u64)],
    ) -> Result<Self, String> {
        let mut asked = Self {
            words: Vec::new(),
            numbers: numbers.iter().copied().collect(),
        };
        let mut arguments = arguments.filter(|argument| argument != "--bench");
        while let Some(argument) = arguments.next() {
            let Some(option) = argument.strip_prefix("--") else {
                asked.words.push(argument.to_lowercase());
                continue;
            };
            let Some(number) = asked.numbers.get_mut(option) else {
                let known: Vec<_> = numbers.iter().map(|(name, _)| *name).collect();
                let known = known.join(" N, --");
                return Err(format!(
                    "unknown option `{argument}`; there are --{known} N"
                ));
            };
            let value = arguments.next().unwrap_or_default();
            *number = value
                .parse()
                .ok()
                .filter(|number| *number > 0)
                .ok_or_else(|| format!("{argument} takes a number above 0, not `{value}`"))?;
        }
        Ok(asked)
    }

    /// The number of an option.
    ///
    /// # Panics
    ///
    /// If there is no such option.
    pub fn number(&self, option: &str) -> u64 {
        self.numbers[option]
    }

    /// The words.
    pub fn words(&self) -> &[String] {
        &self.words
    }

    /// Whether a title contains all words.
    pub fn includes(&self, title: &str) -> bool {
        let title = title.to_lowercase();
        self.words.iter().all(|word| title.contains(word))
    }

    /// Whether something of that name can be among what was asked for: no word means another one.
    pub fn may_include(&self, name: &str, all: &[&str]) -> bool {
        let named = |name: &str, word: &String| name.to_lowercase().contains(word);
        let another = |word: &String| all.iter().any(|other| named(other, word));
        self.words
            .iter()
            .all(|word| named(name, word) || !another(word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(line: &[&str]) -> Result<Asked, String> {
        Asked::read(line.iter().map(|word| (*word).to_owned()), &[("rounds", 5)])
    }

    #[test]
    fn a_word_of_one_leaves_out_the_others() {
        let all = ["Kafka", "RabbitMQ classic queue", "RabbitMQ quorum queue"];
        let asked = asked(&["consume", "classic", "512"]).unwrap();
        let left: Vec<_> = all
            .into_iter()
            .filter(|name| asked.may_include(name, &all))
            .collect();
        assert_eq!(left, ["RabbitMQ classic queue"]);
    }

    #[test]
    fn what_is_not_understood_is_told_with_what_would_be() {
        let unknown = asked(&["--round", "3"]).unwrap_err();
        assert!(unknown.contains("there are --rounds N"), "{unknown}");
        let none = asked(&["--rounds", "0"]).unwrap_err();
        assert!(none.contains("above 0"), "{none}");
    }
}
