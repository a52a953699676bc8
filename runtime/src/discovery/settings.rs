//! `[discovery.NAME]`: the backends; `[services.NAME.discovery]`: how a service is found by them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Rng;
use crate::config::{Config, Faults, Section, suggest::suggest};
use crate::observability::metrics::MetricsSink;

use super::cache::Cache;
use super::directory::DirectoryBackend;
use super::feed::{Hub, Rules};
use super::file::FileBackend;
use super::filter::Filter;
use super::following::Backend;
use super::merge::Merge;
use super::registration::NamedRegistrar;
use super::{Discovery, EndpointSet, Query, ServiceWatch, static_list};

/// The kinds of backends.
const KINDS: &[&str] = &["file", "directory", "dns"];

/// The backends of an app, by name.
#[derive(Clone, Default)]
pub(crate) struct Backends {
    all: BTreeMap<Arc<str>, Arc<dyn Discovery>>,
    /// The names of those whose settings are wrong: naming one of them is no further mistake.
    broken: Vec<String>,
    /// Where what was known last is kept.
    cache: Option<PathBuf>,
    /// The name of the program, which keeps it there under its own name.
    program: Arc<str>,
}

/// The schemes that can stand in the configuration, and those of what is found.
type Schemes = (&'static [&'static str], &'static [&'static str]);

/// Where a service is.
#[derive(Clone, Debug)]
pub(crate) enum Whereabouts {
    /// Where the configuration says, for as long as the app runs.
    Fixed(Arc<EndpointSet>),
    /// Where backends say.
    Watched(Arc<ServiceWatch>),
}

impl Default for Whereabouts {
    fn default() -> Self {
        Self::Fixed(Arc::default())
    }
}

impl Backends {
    /// Reads `[discovery]`; those that the program gives stand above. Asks nobody anything.
    ///
    /// Every section is a backend. Beside them, `cache` names a directory in which what is known of each
    /// service is kept, for a start while nobody answers; without it nothing is kept. Several programs
    /// can share it: each has files of its own.
    pub(crate) fn read(
        config: &Config,
        program: &Arc<str>,
        given: &[(Arc<str>, Arc<dyn Discovery>)],
        rng: &Rng,
        faults: &mut Faults,
    ) -> Self {
        let mut this = Self {
            program: Arc::clone(program),
            ..Self::default()
        };
        let all = config.section("discovery");
        // Read first, so that it is not taken for the name of a backend.
        if let Some(directory) = all.string("cache", faults) {
            if directory.is_empty() {
                let fault = all.fault("cache", "is empty");
                faults.push(fault.with_help("name a directory, or leave it out"));
            }
            this.cache = Some(directory.into());
        }
        for (name, section) in all.entries(faults) {
            if given.iter().any(|(given, _)| **given == *name) {
                section.accept_all(faults);
                continue;
            }
            match read_backend(&section, rng, faults) {
                Some(backend) => {
                    this.all.insert(name.into(), backend);
                }
                None => this.broken.push(name.to_owned()),
            }
        }
        this.all.extend(given.iter().cloned());
        this
    }

    /// Those at which instances can be registered.
    pub(super) fn registrars(&self) -> Vec<NamedRegistrar> {
        let registrars = self.all.iter().filter_map(|(name, backend)| {
            Some(NamedRegistrar {
                name: Arc::clone(name),
                registrar: backend.registrar()?,
            })
        });
        registrars.collect()
    }

    pub(super) fn knows(&self, name: &str) -> bool {
        self.all.contains_key(name)
    }

    /// Whether there is one of this name with wrong settings.
    pub(super) fn is_broken(&self, name: &str) -> bool {
        self.broken.iter().any(|broken| broken == name)
    }

    /// Reads where a service is: `urls`, `discovery`, or both. `None` after pushing what is wrong.
    ///
    /// | key of `discovery` | default | |
    /// |---|---|---|
    /// | `backends` | the only one in `[discovery]` | whom to ask, the most trusted first |
    /// | `merge` | `failover` | the first that knows an endpoint, or the `union` of all |
    /// | `name` | the service's | what the service is called there |
    /// | `patience` | `10s` | how long a backend must say that there is nothing any more, or fail while another one answers, before that changes anything |
    /// | `first_answer` | `5s` | how long a call may wait for the first answer |
    /// | `only.*` | | see `Filter`: which of the instances are called |
    pub(crate) fn whereabouts(
        &self,
        service: &Section<'_>,
        (known, schemes): Schemes,
        metrics: Option<&dyn MetricsSink>,
        faults: &mut Faults,
    ) -> Option<Whereabouts> {
        let section = service.section("discovery", faults);
        let is_discovered =
            section.is_present() || !service.contains("urls") && !self.all.is_empty();
        if !is_discovered {
            let fixed = static_list::read(service, known, faults)?;
            return Some(Whereabouts::Fixed(Arc::new(fixed)));
        }
        let before = faults.len();
        let mut backends = self.chosen(&section, faults);
        if service.contains("urls") {
            // What the configuration says is there when nobody else knows anything.
            if let Some(fixed) = static_list::read(service, known, faults) {
                backends.push(Backend {
                    name: "urls".into(),
                    discovery: Arc::new(static_list::StaticList(fixed)),
                });
            }
        }
        let name = section.string("name", faults);
        let name = name.unwrap_or_else(|| service.name().to_owned());
        if name.is_empty() {
            faults.push(section.fault("name", "is empty"));
        }
        let merge = section.choice("merge", Merge::NAMES, faults);
        let merge = merge.and_then(Merge::named).unwrap_or_default();
        let limits = Duration::ZERO..=Duration::from_secs(86_400);
        let patience = section.duration("patience", limits.clone(), faults);
        let patience = patience.unwrap_or(Duration::from_secs(10));
        let first_answer = section.duration("first_answer", limits, faults);
        let first_answer = first_answer.unwrap_or(Duration::from_secs(5));
        let filter = Filter::read(&section.section("only", faults), faults);
        if faults.len() > before || backends.is_empty() {
            return None;
        }
        let sources = backends.iter();
        let sources = sources.map(|one| (Arc::clone(&one.name), one.discovery.kind()));
        let rules = Rules {
            schemes,
            filter,
            merge,
            patience,
        };
        let service: Arc<str> = service.name().into();
        let hub = Hub::new(&service, sources, rules, metrics);
        let query = Query {
            service: name.into(),
        };
        let cache = self.cache.as_ref();
        let cache = cache.map(|directory| Cache::new(directory, &self.program, &service));
        let watch = ServiceWatch::new(hub, backends, query, first_answer, cache);
        Some(Whereabouts::Watched(Arc::new(watch)))
    }

    /// The backends that a service names.
    fn chosen(&self, section: &Section<'_>, faults: &mut Faults) -> Vec<Backend> {
        let before = faults.len();
        let Some(names) = section.strings("backends", faults) else {
            let mut all = self.all.iter();
            return match (all.next(), all.next()) {
                (Some((name, discovery)), None) if self.broken.is_empty() => vec![Backend {
                    name: Arc::clone(name),
                    discovery: Arc::clone(discovery),
                }],
                _ => {
                    if faults.len() == before && self.broken.is_empty() {
                        let fault = section.fault("backends", "is missing");
                        faults.push(fault.with_help(self.what_to_name()));
                    }
                    Vec::new()
                }
            };
        };
        if names.is_empty() {
            let fault = section.fault("backends", "is empty");
            faults.push(fault.with_help(self.what_to_name()));
        }
        let mut chosen: Vec<Backend> = Vec::new();
        for name in &names {
            if chosen.iter().any(|known| *known.name == **name) {
                let message = format!("names `{name}` twice");
                faults.push(section.fault("backends", message));
            } else if let Some((name, discovery)) = self.all.get_key_value(&**name) {
                chosen.push(Backend {
                    name: Arc::clone(name),
                    discovery: Arc::clone(discovery),
                });
            } else if !self.broken.contains(name) {
                let message = format!("names `{name}`, which is not configured");
                let fault = section.fault("backends", message);
                let near = suggest(name, self.all.keys().map(|name| &**name));
                let help = near.map_or_else(
                    || self.what_to_name(),
                    |near| format!("did you mean `{near}`?"),
                );
                faults.push(fault.with_help(help));
            }
        }
        chosen
    }

    fn what_to_name(&self) -> String {
        let Some(name) = self.all.keys().next() else {
            return "write `[discovery.local]` with `kind = \"file\"` and `path = \"endpoints.toml\"`, \
                    and here `backends = [\"local\"]`"
                .to_owned();
        };
        let known: Vec<_> = self.all.keys().map(|name| format!("`{name}`")).collect();
        let known = known.join(", ");
        format!("write for example `backends = [\"{name}\"]`; there is {known}")
    }
}

/// Reads one backend. `None` after pushing what is wrong.
fn read_backend(
    section: &Section<'_>,
    rng: &Rng,
    faults: &mut Faults,
) -> Option<Arc<dyn Discovery>> {
    #[cfg(not(feature = "dns"))]
    let _ = rng;
    let before = faults.len();
    match section.choice("kind", KINDS, faults) {
        Some("file") => Some(Arc::new(FileBackend::read(section, faults)?)),
        Some("directory") => Some(Arc::new(DirectoryBackend::read(section, faults)?)),
        #[cfg(feature = "dns")]
        Some("dns") => Some(Arc::new(super::dns::DnsBackend::read(
            section, rng, faults,
        )?)),
        #[cfg(not(feature = "dns"))]
        Some("dns") => {
            let fault = section.fault("kind", "is not switched on in this program");
            faults.push(fault.with_help("add the feature `dns` to `interline` in Cargo.toml"));
            section.accept_all(faults);
            None
        }
        _ => {
            if faults.len() == before {
                let fault = section.fault("kind", "is missing");
                faults.push(fault.with_help("write for example `kind = \"file\"`"));
            }
            section.accept_all(faults);
            None
        }
    }
}

impl std::fmt::Debug for Backends {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.all.keys()).finish()
    }
}

#[cfg(test)]
mod tests;
