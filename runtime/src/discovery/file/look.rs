//! Looking at a file again and again, and reading it when it is another one.

use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, SystemTime};

use crate::discovery::document::Document;

/// Longer ones are the wrong file: 100 000 endpoints fit.
const BYTES_MAX: u64 = 16 << 20;
/// How long a file that is written in place must be left alone, and how often that is waited for.
const QUIET: Duration = Duration::from_millis(50);
const QUIET_TRIES: u32 = 10;
/// Within this time a file can change twice and look the same: as long as file systems count time in
/// steps.
const SAME_TIME: Duration = Duration::from_millis(50);

/// What can be seen of a file without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    file: u64,
    bytes: u64,
    modified: Option<SystemTime>,
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        #[cfg(unix)]
        let file = std::os::unix::fs::MetadataExt::ino(metadata);
        #[cfg(not(unix))]
        let file = 0;
        Self {
            file,
            bytes: metadata.len(),
            modified: metadata.modified().ok(),
        }
    }

    /// Whether it would look the same if it changed once more right now.
    fn is_fresh(&self) -> bool {
        let age = self.modified.and_then(|at| at.elapsed().ok());
        age.is_none_or(|age| age < SAME_TIME)
    }
}

/// Whether a file that was not read before may be half written. One with another identity than before was
/// renamed to the name and is whole; where there was none, it may just be coming.
fn may_be_half(before: Option<Stamp>, seen: Stamp) -> bool {
    match before {
        Some(before) => before.file == seen.file,
        None => seen.is_fresh(),
    }
}

/// Waits until two looks in a row see the same; not for ever, because something may be written all the
/// time.
fn when_quiet(
    mut seen: Stamp,
    mut look: impl FnMut() -> io::Result<Stamp>,
    mut pause: impl FnMut(),
) -> io::Result<()> {
    for _ in 0..QUIET_TRIES {
        pause();
        let now = look()?;
        if now == seen {
            break;
        }
        seen = now;
    }
    Ok(())
}

/// What was found.
pub(super) enum Looked {
    /// It is the file that was read last.
    Same,
    /// It is the file that could not be used last time.
    StillBroken,
    Read(Document),
    Failed(String),
}

/// A file that is looked at.
pub(super) struct Look {
    path: Arc<PathBuf>,
    /// That of the file that was read last.
    stamp: Option<Stamp>,
    is_broken: bool,
}

impl Look {
    pub(super) fn new(path: Arc<PathBuf>) -> Self {
        Self {
            path,
            stamp: None,
            is_broken: false,
        }
    }

    pub(super) fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// What was read was of no use.
    pub(super) fn forget(&mut self) {
        self.is_broken = true;
    }

    /// Reads the file if it is another one than before. Blocks.
    pub(super) fn again(&mut self) -> Looked {
        let read = match self.read() {
            Ok(None) if self.is_broken => return Looked::StillBroken,
            Ok(None) => return Looked::Same,
            Ok(Some(text)) => text,
            Err(error) => {
                self.stamp = None;
                self.is_broken = true;
                return Looked::Failed(format!("{} cannot be read: {error}", self.name()));
            }
        };
        let is_json = self.path.extension().is_some_and(|end| end == "json");
        match Document::parse(&read, is_json) {
            Ok(document) => {
                self.is_broken = false;
                Looked::Read(document)
            }
            Err(why) => {
                self.is_broken = true;
                Looked::Failed(format!("{}: {why}", self.name()))
            }
        }
    }

    fn read(&mut self) -> io::Result<Option<String>> {
        let look = || Ok(Stamp::of(&std::fs::metadata(&*self.path)?));
        let seen = look()?;
        if self.stamp == Some(seen) {
            return Ok(None);
        }
        if may_be_half(self.stamp, seen) {
            when_quiet(seen, look, || sleep(QUIET))?;
        }
        let mut text = String::new();
        let mut file = File::open(&*self.path)?;
        let opened = Stamp::of(&file.metadata()?);
        let bytes = file
            .by_ref()
            .take(BYTES_MAX + 1)
            .read_to_string(&mut text)?;
        if bytes as u64 > BYTES_MAX {
            let text = format!("it is longer than {} MiB", BYTES_MAX >> 20);
            return Err(io::Error::other(text));
        }
        // What changes while it is read, or could change unseen, is read again next time.
        let unchanged = Stamp::of(&file.metadata()?) == opened;
        self.stamp = (unchanged && !opened.is_fresh()).then_some(opened);
        Ok(Some(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_waited_for_where_it_may_be_half_written() {
        let stamp = |file, age| Stamp {
            file,
            bytes: 1,
            modified: SystemTime::now().checked_sub(age),
        };
        let (young, old) = (Duration::ZERO, Duration::from_secs(60));
        assert!(may_be_half(Some(stamp(1, old)), stamp(1, old)));
        assert!(!may_be_half(Some(stamp(1, old)), stamp(2, young)));
        assert!(may_be_half(None, stamp(1, young)));
        assert!(!may_be_half(None, stamp(1, old)));
    }

    #[test]
    fn a_file_that_grows_is_waited_for_and_not_for_ever() {
        let stamp = |bytes| Stamp {
            file: 1,
            bytes,
            modified: None,
        };
        let looks = |sizes: &mut dyn Iterator<Item = u64>| {
            let mut looked = 0;
            let look = || {
                looked += 1;
                Ok(stamp(sizes.next().expect("one more size")))
            };
            when_quiet(stamp(0), look, || {}).unwrap();
            looked
        };
        assert_eq!(looks(&mut [0].into_iter()), 1);
        assert_eq!(looks(&mut [1, 2, 3, 3, 4].into_iter()), 4);
        assert_eq!(looks(&mut (1..)), QUIET_TRIES);
        let gone = when_quiet(stamp(0), || Err(io::ErrorKind::NotFound.into()), || {});
        assert_eq!(gone.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
