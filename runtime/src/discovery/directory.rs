//! Instances that stand in a directory, each in a file of its own: registration that needs no server.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::clock::Rng;
use crate::config::{Faults, Section};

use super::document::Document;
use super::registrar::Registering;
use super::{
    Discovery, Endpoint, EndpointSet, Feed, Following, Query, Registrar, RegistrarError,
    ServiceInstance,
};

/// How often it is looked at, unless configured.
const POLL: Duration = Duration::from_millis(500);
/// What is left behind by instances that died is removed after this, or after ten times its life.
const LEFT_BEHIND: Duration = Duration::from_secs(60);
/// No instance's file is longer: what is, is not read to find out whether it was left behind.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// More instances of one service are a mistake.
const INSTANCES_MAX: usize = 10_000;

/// A directory that the programs on one machine, or on a shared file system, have in common. Each
/// instance is a file in a folder with the name of its service, and lives as long as that is touched:
/// the clocks of all machines have to agree to within the time to live.
///
/// | key of `[discovery.NAME]` | default | |
/// |---|---|---|
/// | `path` | must be given | the directory |
/// | `ttl` | `15s` | how long an instance is there after its last heartbeat |
/// | `poll` | `500ms` | how often the directory is looked at |
#[derive(Clone, Debug)]
pub(super) struct DirectoryBackend {
    path: Arc<PathBuf>,
    ttl: Duration,
    poll: Duration,
}

impl DirectoryBackend {
    /// `None` after pushing what is wrong.
    pub(super) fn read(section: &Section<'_>, faults: &mut Faults) -> Option<Self> {
        let before = faults.len();
        let path = section.string("path", faults);
        if path.as_ref().is_none_or(String::is_empty) && faults.len() == before {
            let fault = section.fault("path", "is missing");
            faults.push(fault.with_help("write for example `path = \"/run/services\"`"));
        }
        let limits = Duration::from_millis(10)..=Duration::from_secs(3_600);
        let poll = section.duration("poll", limits, faults).unwrap_or(POLL);
        let lives = Duration::from_millis(100)..=Duration::from_secs(86_400);
        let ttl = section.duration("ttl", lives, faults);
        let ttl = ttl.unwrap_or(Duration::from_secs(15));
        let path = Arc::new(PathBuf::from(path?));
        (faults.len() == before).then_some(Self { path, ttl, poll })
    }

    /// All instances that live. Blocks.
    fn look(&self, service: &str) -> Result<EndpointSet, String> {
        let failed =
            |path: &Path, error: &io::Error| format!("{} cannot be read: {error}", path.display());
        let folder = self.folder(service).map_err(|error| error.to_string())?;
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // A directory without a folder of the service says that there is none; without the
                // directory nobody knows.
                return match fs::metadata(&*self.path) {
                    Ok(_) => Ok(EndpointSet::default()),
                    Err(error) => Err(failed(&self.path, &error)),
                };
            }
            Err(error) => return Err(failed(&folder, &error)),
        };
        let mut endpoints: Vec<Endpoint> = Vec::new();
        for entry in entries {
            let path = entry.map_err(|error| failed(&folder, &error))?.path();
            if !is_instance(&path) {
                continue;
            }
            let read = fs::metadata(&path)
                .and_then(|metadata| Ok((metadata.modified()?, fs::read_to_string(&path)?)));
            let (touched, text) = match read {
                Ok(read) => read,
                // It has just gone.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed(&path, &error)),
            };
            if age(touched) > self.ttl {
                continue;
            }
            let set = Document::parse(&text, true).and_then(|one| one.endpoints(service));
            let set = set.map_err(|why| format!("{}: {why}", path.display()))?;
            endpoints.extend(set.iter().cloned());
            if endpoints.len() > INSTANCES_MAX {
                let text = format!(
                    "more than {INSTANCES_MAX} instances in {}",
                    folder.display()
                );
                return Err(text);
            }
        }
        Ok(endpoints.into_iter().collect())
    }

    fn folder(&self, service: &str) -> io::Result<PathBuf> {
        Ok(self.path.join(plain(service)?))
    }

    fn file(&self, instance: &ServiceInstance) -> io::Result<PathBuf> {
        let name = format!("{}.json", plain(&instance.id)?);
        Ok(self.folder(&instance.service)?.join(name))
    }

    /// Blocks, as the two below.
    fn write(&self, instance: &ServiceInstance) -> io::Result<()> {
        let folder = self.folder(&instance.service)?;
        let file = self.file(instance)?;
        fs::create_dir_all(&folder)?;
        self.remove_left_behind(&folder, &instance.service);
        let set: EndpointSet = [instance.endpoint.clone()].into_iter().collect();
        let text = Document::of(&instance.service, &set).to_json();
        let new = unfinished(&file);
        let written = fs::File::create(&new)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .and_then(|()| fs::rename(&new, &file));
        if written.is_err() {
            let _ = fs::remove_file(new);
        }
        written
    }

    fn touch(&self, instance: &ServiceInstance) -> Result<(), RegistrarError> {
        let touched = self.file(instance).and_then(|path| {
            let file = fs::File::options().append(true).open(path)?;
            file.set_modified(SystemTime::now())
        });
        touched.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => RegistrarError::Unknown,
            _ => RegistrarError::Failed(error.to_string()),
        })
    }

    fn remove(&self, instance: &ServiceInstance) -> io::Result<()> {
        match fs::remove_file(self.file(instance)?) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Whoever died could not do it. What else lies in the folder is somebody's own.
    fn remove_left_behind(&self, folder: &Path, service: &str) {
        let old = LEFT_BEHIND.max(self.ttl * 10);
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            let path = entry.path();
            let is_old = metadata.modified().is_ok_and(|touched| age(touched) > old);
            if is_old && metadata.is_file() && is_ours(&path, metadata.len(), service) {
                // Another instance may have been faster.
                let _ = fs::remove_file(path);
            }
        }
    }

    fn step(
        &self,
        instance: Arc<ServiceInstance>,
        step: impl FnOnce(&Self, &ServiceInstance) -> Result<(), RegistrarError> + Send + 'static,
    ) -> Registering {
        let this = self.clone();
        Box::pin(async move {
            let done = spawn_blocking(move || step(&this, &instance)).await;
            done.unwrap_or_else(|_| Err(RegistrarError::Failed("going down".to_owned())))
        })
    }
}

fn age(touched: SystemTime) -> Duration {
    // What is touched in the future is young: clocks differ a little.
    SystemTime::now()
        .duration_since(touched)
        .unwrap_or_default()
}

fn is_instance(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "json")
}

/// The name under which the file of an instance is written before it is renamed.
fn unfinished(file: &Path) -> PathBuf {
    // No other instance has this name, and its own predecessor may have left one.
    let chance = Rng::new().below(u64::MAX);
    file.with_extension(format!("{chance:x}.new"))
}

fn is_unfinished(path: &Path) -> bool {
    let chance = path.file_stem().map(Path::new).and_then(Path::extension);
    let chance = chance.and_then(|chance| chance.to_str());
    path.extension().is_some_and(|end| end == "new")
        && chance.is_some_and(|chance| u64::from_str_radix(chance, 16).is_ok())
}

/// Whether an instance of the service has written a file.
fn is_ours(path: &Path, bytes: u64, service: &str) -> bool {
    if is_unfinished(path) {
        return true;
    }
    if !is_instance(path) || bytes > FILE_BYTES_MAX {
        return false;
    }
    let text = fs::read_to_string(path).unwrap_or_default();
    Document::parse(&text, true).is_ok_and(|document| document.is_of_one_instance(service))
}

/// A name that is one part of a path, and not a hidden or special one.
fn plain(name: &str) -> io::Result<&str> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.starts_with('.') || !name.chars().all(fits) {
        let text =
            format!("`{name}` cannot be the name of a file: use letters, digits, `-`, `_`, `.`");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    Ok(name)
}

impl Discovery for DirectoryBackend {
    fn kind(&self) -> &'static str {
        "directory"
    }

    fn follow(&self, query: Query, feed: Feed) -> Following {
        let this = self.clone();
        Box::pin(async move {
            loop {
                let asking = feed.ask();
                let (backend, service) = (this.clone(), Arc::clone(&query.service));
                match spawn_blocking(move || backend.look(&service)).await {
                    Ok(Ok(endpoints)) => asking.answered(endpoints),
                    Ok(Err(why)) => asking.failed(why),
                    // Only where the runtime goes down.
                    Err(_) => return,
                }
                sleep(this.poll).await;
            }
        })
    }

    fn registrar(&self) -> Option<Arc<dyn Registrar>> {
        Some(Arc::new(self.clone()))
    }
}

impl Registrar for DirectoryBackend {
    fn kind(&self) -> &'static str {
        "directory"
    }

    fn ttl(&self) -> Duration {
        self.ttl
    }

    fn register(&self, instance: Arc<ServiceInstance>) -> Registering {
        self.step(instance, |this, instance| {
            let written = this.write(instance);
            written.map_err(|error| RegistrarError::Failed(error.to_string()))
        })
    }

    fn heartbeat(&self, instance: Arc<ServiceInstance>) -> Registering {
        self.step(instance, Self::touch)
    }

    fn deregister(&self, instance: Arc<ServiceInstance>) -> Registering {
        self.step(instance, |this, instance| {
            let removed = this.remove(instance);
            removed.map_err(|error| RegistrarError::Failed(error.to_string()))
        })
    }
}

#[cfg(test)]
mod tests;
