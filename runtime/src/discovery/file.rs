//! Endpoints that stand in a file, which somebody else writes.

mod look;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::config::{Faults, Section};

use super::{Discovery, Feed, Following, Query};

use look::{Look, Looked};

/// How often the file is looked at, unless configured.
const POLL: Duration = Duration::from_millis(500);

/// A file with the endpoints of services:
///
/// ```toml
/// orders = ["http://10.0.0.7:8080", "http://10.0.0.8:8080"]
///
/// [[payments]]
/// url = "http://10.0.0.9:8080"
/// zone = "eu-1"
/// version = "1.4.2"
/// tags = ["blue"]
/// metadata = { tier = "gold" }
/// weight = 3
/// host = "eu.orders.internal"   # the name it is called by: the one in its certificate
/// priority = 1        # stands by for the time when none of priority 0 can be called
/// ```
///
/// or the same as JSON, where its name ends in `.json`. It is best replaced by renaming another one to
/// its name: then nobody ever reads a half. One that is written in place is read when it has stopped
/// growing.
///
/// | key of `[discovery.NAME]` | default | |
/// |---|---|---|
/// | `path` | must be given | the file; it may come later |
/// | `poll` | `500ms` | how often it is looked at |
pub(super) struct FileBackend {
    path: Arc<PathBuf>,
    poll: Duration,
}

impl FileBackend {
    /// `None` after pushing what is wrong.
    pub(super) fn read(section: &Section<'_>, faults: &mut Faults) -> Option<Self> {
        let before = faults.len();
        let path = section.string("path", faults);
        if path.as_ref().is_none_or(String::is_empty) && faults.len() == before {
            let fault = section.fault("path", "is missing");
            faults.push(fault.with_help("write for example `path = \"endpoints.toml\"`"));
        }
        let limits = Duration::from_millis(10)..=Duration::from_secs(3_600);
        let poll = section.duration("poll", limits, faults).unwrap_or(POLL);
        let path = Arc::new(PathBuf::from(path?));
        (faults.len() == before).then_some(Self { path, poll })
    }
}

impl Discovery for FileBackend {
    fn kind(&self) -> &'static str {
        "file"
    }

    fn follow(&self, query: Query, feed: Feed) -> Following {
        let (path, poll) = (Arc::clone(&self.path), self.poll);
        Box::pin(async move {
            let mut look = Look::new(path);
            loop {
                let asking = feed.ask();
                let task = spawn_blocking(move || {
                    let looked = look.again();
                    (look, looked)
                });
                let Ok((returned, looked)) = task.await else {
                    // Only where the runtime goes down.
                    return;
                };
                look = returned;
                match looked {
                    Looked::Same => feed.unchanged(),
                    Looked::StillBroken => {}
                    Looked::Read(document) => match document.endpoints(&query.service) {
                        Ok(endpoints) => asking.answered(endpoints),
                        Err(why) => {
                            look.forget();
                            asking.failed(format!("{}: {why}", look.name()));
                        }
                    },
                    Looked::Failed(why) => asking.failed(why),
                }
                sleep(poll).await;
            }
        })
    }
}

#[cfg(test)]
mod tests;
