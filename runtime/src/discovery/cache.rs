//! What was known last, on disk: for a start while nobody answers.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout_at};

use crate::clock::Rng;

use super::EndpointSet;
use super::document::Document;
use super::feed::Hub;

/// How often the file is written although nothing has changed, so that its age tells when it was
/// last true.
const FRESHEN: Duration = Duration::from_secs(60);
/// How long the backends have at the start, and how often it is looked whether they have answered.
const ANSWER_MAX: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The file of one service as one program finds it. It has the form of a file of endpoints, and its time is its age.
#[derive(Clone, Debug)]
pub(super) struct Cache {
    path: Arc<PathBuf>,
    service: Arc<str>,
}

impl Cache {
    /// That of a service in this directory. Another program may mean another service by the same name.
    pub(super) fn new(directory: &Path, program: &str, service: &Arc<str>) -> Self {
        let name = format!("{}.{}.json", plain(program), plain(service));
        Self {
            path: Arc::new(directory.join(name)),
            service: Arc::clone(service),
        }
    }

    /// What was kept, and how long ago it was true. `None` where there is nothing of use.
    pub(super) async fn read(&self) -> Option<(EndpointSet, Duration)> {
        let this = self.clone();
        let read = spawn_blocking(move || this.read_now()).await.ok()?;
        match read {
            Ok(kept) => Some(kept),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                let (service, path) = (&*self.service, self.path.display());
                tracing::warn!(service, %path, %error, "the cache of discovery is of no use");
                None
            }
        }
    }

    fn read_now(&self) -> io::Result<(EndpointSet, Duration)> {
        let written = fs::metadata(&*self.path)?.modified()?;
        let age = SystemTime::now().duration_since(written);
        let text = fs::read_to_string(&*self.path)?;
        let document = Document::parse(&text, true).map_err(io::Error::other)?;
        let endpoints = document.endpoints(&self.service);
        Ok((
            endpoints.map_err(io::Error::other)?,
            age.unwrap_or_default(),
        ))
    }

    /// Reads what was kept where nobody answers soon; then keeps what is known, again whenever it
    /// changes, until it is dropped.
    pub(super) async fn serve(self, hub: Arc<Hub>) {
        let begun = Instant::now();
        while !hub.is_resolved() && !hub.is_left_alone() && begun.elapsed() < ANSWER_MAX {
            sleep(LOOK_EVERY).await;
        }
        if !hub.is_resolved()
            && let Some((endpoints, age)) = self.read().await
        {
            hub.remember(endpoints, age);
        }
        let mut snapshots = hub.subscribe();
        let mut failing = false;
        loop {
            let snapshot = snapshots.borrow_and_update().clone();
            // What came from here is no news, and what nobody says any more does not get younger.
            let is_news = snapshot.resolved && !snapshot.cached && hub.is_answering();
            if is_news && !snapshot.endpoints.is_empty() {
                let this = self.clone();
                let written = spawn_blocking(move || this.write_now(&snapshot.endpoints));
                let Ok(written) = written.await else {
                    // Only where the runtime goes down.
                    return;
                };
                match written {
                    Err(error) if !failing => {
                        let (service, path) = (&*self.service, self.path.display());
                        let text = "the cache of discovery cannot be written";
                        tracing::warn!(service, %path, %error, "{text}");
                        failing = true;
                    }
                    Err(_) => {}
                    Ok(()) => failing = false,
                }
            }
            let again = Instant::now() + FRESHEN;
            if matches!(timeout_at(again, snapshots.changed()).await, Ok(Err(_))) {
                return;
            }
        }
    }

    /// Writes another file and renames it, so that nobody ever reads a half.
    fn write_now(&self, endpoints: &EndpointSet) -> io::Result<()> {
        if let Some(directory) = self.path.parent() {
            fs::create_dir_all(directory)?;
        }
        // Another instance may write the same file in the same moment.
        let chance = Rng::new().below(u64::MAX);
        let new = self.path.with_extension(format!("{chance:x}.new"));
        let text = Document::of(&self.service, endpoints).to_json();
        let written = write(&new, &text).and_then(|()| fs::rename(&new, &*self.path));
        if written.is_err() {
            // What is left of it is of no use, and it may not even be there.
            let _ = fs::remove_file(new);
        }
        written
    }
}

/// A name as a part of that of a file, different for each.
fn plain(name: &str) -> String {
    let mut plain = String::new();
    for c in name.chars() {
        if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') {
            plain.push(c);
        } else {
            plain.push_str(&format!("%{:x}", u32::from(c)));
        }
    }
    plain
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut file = fs::File::create(path)?;
    file.write_all(text.as_bytes())?;
    // A name that leads to what never reached the disk would be worse than none.
    file.sync_all()
}

#[cfg(test)]
mod tests;
