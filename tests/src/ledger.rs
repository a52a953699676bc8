//! What the program `ledger-service` and the crash tests have in common: its messages, and the file
//! in which it notes what it did.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use interline::Message;
use serde::{Deserialize, Serialize};

/// What the service consumes.
#[derive(Debug, Clone, Message, Serialize, Deserialize)]
#[message(topic = "ledger.input", key = lane)]
pub struct Input {
    /// Its number, unique in a test.
    pub n: u64,
    /// Messages of one lane are published one after the other.
    pub lane: u64,
    /// Something to carry.
    pub payload: String,
}

/// What the service publishes for each input that it has handled.
#[derive(Debug, Clone, Message, Serialize, Deserialize)]
#[message(topic = "ledger.output", key = n)]
pub struct Output {
    /// The number of the input.
    pub n: u64,
}

/// What the service decided about an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Handled.
    Done,
    /// This attempt fails, a later one will not.
    Again,
    /// It will never be handled.
    Never,
}

impl Decision {
    /// What an input with the failure pattern on comes to: one in ten fails once, one in twenty-five
    /// for good.
    #[must_use]
    pub fn by_pattern(n: u64, attempt: u32) -> Self {
        if n % 25 == 7 {
            Self::Never
        } else if n % 10 == 3 && attempt == 1 {
            Self::Again
        } else {
            Self::Done
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Again => "again",
            Self::Never => "never",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        [Self::Done, Self::Again, Self::Never]
            .into_iter()
            .find(|decision| decision.word() == word)
    }
}

/// One line of the ledger: one attempt that came to its decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The number of the input.
    pub n: u64,
    /// Its lane.
    pub lane: u64,
    /// Which attempt it was, from 1.
    pub attempt: u32,
    /// The identity of the input.
    pub id: String,
    /// What was decided.
    pub decision: Decision,
}

impl Entry {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        Some(Self {
            n: words.next()?.parse().ok()?,
            lane: words.next()?.parse().ok()?,
            attempt: words.next()?.parse().ok()?,
            id: words.next()?.to_owned(),
            decision: Decision::parse(words.next()?)?,
        })
    }
}

/// The ledger as the service writes it: each entry one write at the end of the file, so that a kill
/// leaves whole lines.
#[derive(Debug)]
pub struct LedgerWriter(File);

impl LedgerWriter {
    /// Opens it, and makes the file if there is none.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self(file))
    }

    /// Adds an entry.
    ///
    /// # Errors
    ///
    /// When the system refuses, or takes only a part of the line.
    pub fn write(&self, entry: &Entry) -> io::Result<()> {
        let Entry {
            n,
            lane,
            attempt,
            id,
            decision,
        } = entry;
        let line = format!("{n} {lane} {attempt} {id} {}\n", decision.word());
        let written = (&self.0).write(line.as_bytes())?;
        if written == line.len() {
            Ok(())
        } else {
            Err(io::Error::other("the ledger took only a part of a line"))
        }
    }
}

/// The ledger as a test reads it.
#[derive(Debug, Clone)]
pub struct LedgerReader(PathBuf);

impl LedgerReader {
    /// The ledger in that file, which need not be there yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Its length in bytes; it grows with each entry.
    #[must_use]
    pub fn length(&self) -> u64 {
        std::fs::metadata(&self.0).map_or(0, |metadata| metadata.len())
    }

    /// All entries, in the order in which they were made; one that is being written is none yet.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or a line in it is not whole.
    pub fn entries(&self) -> io::Result<Vec<Entry>> {
        let text = match std::fs::read_to_string(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            read => read?,
        };
        let wrong = |line| io::Error::other(format!("`{line}` is not an entry of a ledger"));
        // A line that ends nowhere is being written.
        let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
        whole
            .lines()
            .map(|line| Entry::parse(line).ok_or_else(|| wrong(line)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger");
        let reader = LedgerReader::new(&path);
        assert_eq!((reader.length(), reader.entries().unwrap()), (0, vec![]));
        let entry = |n, decision| Entry {
            n,
            lane: 1,
            attempt: 2,
            id: "one".to_owned(),
            decision,
        };
        let entries = vec![
            entry(3, Decision::Again),
            entry(3, Decision::Done),
            entry(7, Decision::Never),
        ];

        for entry in &entries {
            LedgerWriter::open(&path).unwrap().write(entry).unwrap();
        }

        assert_eq!(reader.entries().unwrap(), entries);
        std::fs::write(&path, "3 1 2 one do").unwrap();
        assert_eq!(reader.entries().unwrap(), []);
        std::fs::write(&path, "3 1 2 one do\n").unwrap();
        assert_eq!(
            reader.entries().unwrap_err().to_string(),
            "`3 1 2 one do` is not an entry of a ledger"
        );
    }
}
