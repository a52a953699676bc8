//! `[registration]`: how the program registers itself.

use std::sync::Arc;
use std::time::Duration;

use crate::config::{Config, Faults};

use super::manager::Own;
use super::registration::NamedRegistrar;
use super::settings::Backends;
use super::{Endpoint, ServiceInstance};

/// Where instances can be registered, and how the program registers itself.
#[derive(Default)]
pub(crate) struct Registrations {
    pub(super) registrars: Vec<NamedRegistrar>,
    pub(super) own: Option<Own>,
}

impl Registrations {
    /// Reads `[registration]`, for this instance of this service.
    pub(crate) fn read(
        config: &Config,
        backends: &Backends,
        (service, instance): (&Arc<str>, &Arc<str>),
        version: Option<&str>,
        faults: &mut Faults,
    ) -> Self {
        let registrars = backends.registrars();
        let section = config.section("registration");
        if !section.is_present() {
            let own = None;
            return Self { registrars, own };
        }
        let before = faults.len();
        let url = section.string("url", faults);
        if url.is_none() && faults.len() == before {
            let fault = section.fault("url", "is missing");
            faults.push(fault.with_help("write for example `url = \"http://10.0.0.7:8080\"`"));
        }
        let endpoint = url.and_then(|url| {
            let parsed = Endpoint::parse(&url);
            parsed
                .map_err(|why| faults.push(section.fault("url", format!("`{url}` {why}"))))
                .ok()
        });
        let chosen = match section.strings("backends", faults) {
            None => registrars.clone(),
            Some(names) => {
                let chosen = names.iter().filter_map(|name| {
                    let found = registrars.iter().find(|one| *one.name == **name);
                    if found.is_none() && !backends.is_broken(name) {
                        let message = if backends.knows(name) {
                            format!("names `{name}`, which registers nothing")
                        } else {
                            format!("names `{name}`, which is not configured")
                        };
                        let fault = section.fault("backends", message);
                        faults.push(fault.with_help(those_that_can(&registrars)));
                    }
                    found.cloned()
                });
                chosen.collect()
            }
        };
        if chosen.is_empty() && faults.len() == before {
            let fault = section.fault("backends", "is empty: the program is registered nowhere");
            faults.push(fault.with_help(those_that_can(&registrars)));
        }
        let limits = Duration::ZERO..=Duration::from_secs(300);
        let propagation = section.duration("propagation", limits, faults);
        let mut own = endpoint;
        let mut say = |change: &dyn Fn(Endpoint) -> Endpoint| own = own.take().map(change);
        if let Some(zone) = section.string("zone", faults) {
            say(&|endpoint| endpoint.with_zone(&zone));
        }
        let given = section.string("version", faults);
        if let Some(version) = given.as_deref().or(version) {
            say(&|endpoint| endpoint.with_version(version));
        }
        for tag in section.strings("tags", faults).unwrap_or_default() {
            say(&|endpoint| endpoint.with_tag(tag.as_str()));
        }
        let metadata = section.section("metadata", faults);
        for key in metadata.keys() {
            if let Some(value) = metadata.string(key, faults) {
                say(&|endpoint| endpoint.with_metadata(key, value.as_str()));
            }
        }
        let own = own.map(|endpoint| Own {
            instance: ServiceInstance::new(Arc::clone(service), Arc::clone(instance), endpoint),
            registrars: chosen,
            propagation: propagation.unwrap_or(Duration::from_secs(2)),
        });
        Self { registrars, own }
    }
}

fn those_that_can(registrars: &[NamedRegistrar]) -> String {
    if registrars.is_empty() {
        return "write `[discovery.shared]` with `kind = \"directory\"` and `path = \"/run/services\"`"
            .to_owned();
    }
    let names = registrars.iter().map(|one| format!("`{}`", one.name));
    let names: Vec<_> = names.collect();
    format!("those that can are {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Rng;

    fn read(lines: &str) -> Result<Registrations, String> {
        let toml = format!(
            "[discovery.shared]\nkind = \"directory\"\npath = \"/run/x\"\n\
             [discovery.list]\nkind = \"file\"\npath = \"x\"\n{lines}"
        );
        let config = Config::from_toml("interline.toml", &toml).unwrap();
        let mut faults = Faults::new();
        let backends = Backends::read(&config, &"billing".into(), &[], &Rng::new(), &mut faults);
        let who = (&"billing".into(), &"billing-7".into());
        let read = Registrations::read(&config, &backends, who, Some("1.2.0"), &mut faults);
        config.finish(&mut faults);
        faults.into_result().map_err(|error| error.to_string())?;
        Ok(read)
    }

    #[test]
    fn what_is_written_is_what_others_are_to_know() {
        assert!(read("").unwrap().own.is_none());
        let own = read("[registration]\nurl = \"http://a:1\"")
            .unwrap()
            .own
            .unwrap();
        let names: Vec<_> = own.registrars.iter().map(|one| &*one.name).collect();
        assert_eq!(names, ["shared"]);
        assert_eq!(own.instance.endpoint.version(), Some("1.2.0"));
        assert_eq!(
            (&*own.instance.service, &*own.instance.id),
            ("billing", "billing-7")
        );
        let own = read(
            "[registration]\nurl = \"http://a:1\"\nzone = \"eu\"\nversion = \"2.0.0\"\n\
             tags = [\"x\"]\nmetadata.k = \"v\"\npropagation = \"0s\"\nbackends = [\"shared\"]",
        );
        let own = own.unwrap().own.unwrap();
        let endpoint = own.instance.endpoint;
        assert_eq!(
            (endpoint.zone(), endpoint.version()),
            (Some("eu"), Some("2.0.0"))
        );
        assert!(endpoint.has_tag("x") && endpoint.metadata("k") == Some("v"));
        assert_eq!(own.propagation, Duration::ZERO);
    }

    #[test]
    fn what_is_wrong_is_said_once() {
        for (lines, text) in [
            ("[registration]", "registration.url  is missing"),
            ("[registration]\nurl = \"a:1\"", "`a:1` has no scheme"),
            (
                "[registration]\nurl = \"http://a\"\nbackends = [\"list\"]",
                "which registers nothing",
            ),
            (
                "[registration]\nurl = \"http://a\"\nbackends = [\"x\"]",
                "those that can are `shared`",
            ),
            (
                "[registration]\nurl = \"http://a\"\nbackends = []",
                "registered nowhere",
            ),
        ] {
            let error = read(lines).err().expect(lines);
            assert!(error.contains(text), "{lines}\n{error}");
            assert!(!error.contains("mistakes"), "{lines}\n{error}");
        }
    }
}
