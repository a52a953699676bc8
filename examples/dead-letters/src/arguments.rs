//! The command line.

const HELP: &str = "\
usage: dead-letters list    GROUP TOPIC [--reason REASON] [--limit N]
       dead-letters show    GROUP TOPIC ID
       dead-letters redrive GROUP TOPIC [--reason REASON] [--limit N] [--rate N] [--dry-run]
       dead-letters purge   GROUP TOPIC [--reason REASON] [--limit N]

  --reason REASON  only those that were given up for it, for example retries_exhausted
  --limit N        at most N (default 1000)
  --rate N         at most N a second
  --dry-run        only count";

/// What to do.
#[derive(Debug)]
pub(crate) enum Command {
    List,
    Show(String),
    Redrive,
    Purge,
}

/// What was asked for.
#[derive(Debug)]
pub(crate) struct Arguments {
    pub(crate) command: Command,
    pub(crate) group: String,
    pub(crate) topic: String,
    pub(crate) reason: Option<String>,
    pub(crate) limit: usize,
    pub(crate) rate: Option<u32>,
    pub(crate) dry_run: bool,
}

impl Arguments {
    /// Reads the command line; the error is what to print.
    pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut next = |what: &str| words.next().ok_or(format!("{what} is missing\n\n{HELP}"));
        let (command, group, topic) = (next("a command")?, next("GROUP")?, next("TOPIC")?);
        let command = match command.as_str() {
            "list" => Command::List,
            "show" => Command::Show(next("ID")?),
            "redrive" => Command::Redrive,
            "purge" => Command::Purge,
            other => return Err(format!("`{other}` is not a command\n\n{HELP}")),
        };
        let (mut reason, mut limit, mut rate, mut dry_run) = (None, 1_000, None, false);
        while let Some(word) = words.next() {
            let mut value = || {
                words
                    .next()
                    .ok_or(format!("{word} wants a value\n\n{HELP}"))
            };
            match word.as_str() {
                "--reason" => reason = Some(value()?),
                "--limit" => limit = number(&word, &value()?)?,
                "--rate" => rate = Some(number(&word, &value()?)?),
                "--dry-run" => dry_run = true,
                other => return Err(format!("`{other}` is not known here\n\n{HELP}")),
            }
        }
        Ok(Self {
            command,
            group,
            topic,
            reason,
            limit,
            rate,
            dry_run,
        })
    }
}

fn number<T: std::str::FromStr>(word: &str, text: &str) -> Result<T, String> {
    text.parse()
        .map_err(|_| format!("{word} wants a number, not `{text}`\n\n{HELP}"))
}
