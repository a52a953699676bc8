//! Which endpoints of a service are called.

use semver::{Version, VersionReq};

use crate::config::{Faults, Section};

use super::Endpoint;

/// What an endpoint must be like to be called; all of it must hold.
///
/// | key of `[services.NAME.discovery.only]` | |
/// |---|---|
/// | `tags` | it has all of these |
/// | `zones` | it is in one of these |
/// | `version` | its version fits, such as `">=1.4, <2"`; one without a version does not |
/// | `metadata.KEY` | it says this about that key |
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    tags: Vec<String>,
    zones: Vec<String>,
    version: Option<VersionReq>,
    metadata: Vec<(String, String)>,
}

impl Filter {
    /// Reads the section; what is wrong with it goes to `faults`.
    pub(super) fn read(section: &Section<'_>, faults: &mut Faults) -> Self {
        let mut list = |key| {
            let before = faults.len();
            let given = section.strings(key, faults);
            if given.as_ref().is_some_and(Vec::is_empty) && faults.len() == before {
                let fault = section.fault(key, "is empty");
                faults.push(fault.with_help("name one, or leave it out"));
            }
            given.unwrap_or_default()
        };
        let (tags, zones) = (list("tags"), list("zones"));
        let version = section.string("version", faults).and_then(|text| {
            let parsed = VersionReq::parse(&text);
            parsed
                .map_err(|error| {
                    let message = format!("`{text}` is no requirement: {error}");
                    let help = "write for example `version = \">=1.4, <2\"`";
                    faults.push(section.fault("version", message).with_help(help));
                })
                .ok()
        });
        let named = section.section("metadata", faults);
        let metadata = named.keys().filter_map(|key| {
            let value = named.string(key, faults)?;
            Some((key.to_owned(), value))
        });
        Self {
            metadata: metadata.collect(),
            tags,
            zones,
            version,
        }
    }

    pub(super) fn admits(&self, endpoint: &Endpoint) -> bool {
        let fits = |wanted: &VersionReq| {
            let version = endpoint.version().map(Version::parse);
            version.is_some_and(|version| version.is_ok_and(|version| wanted.matches(&version)))
        };
        self.tags.iter().all(|tag| endpoint.has_tag(tag))
            && (self.zones.is_empty()
                || endpoint
                    .zone()
                    .is_some_and(|zone| self.zones.iter().any(|wanted| *wanted == *zone)))
            && self.version.as_ref().is_none_or(fits)
            && self
                .metadata
                .iter()
                .all(|(key, value)| endpoint.metadata(key) == Some(&**value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn read(lines: &str) -> Result<Filter, String> {
        let toml = format!("[only]\n{lines}");
        let config = Config::from_toml("interline.toml", &toml).unwrap();
        let mut faults = Faults::new();
        let filter = Filter::read(&config.section("only"), &mut faults);
        config.finish(&mut faults);
        faults.into_result().map_err(|error| error.to_string())?;
        Ok(filter)
    }

    #[test]
    fn all_that_is_asked_for_must_hold() {
        let plain = Endpoint::parse("http://a").unwrap();
        let rich = plain
            .clone()
            .with_zone("eu-1")
            .with_version("1.4.2")
            .with_tag("blue")
            .with_tag("fast")
            .with_metadata("tier", "gold");
        for (lines, admitted) in [
            ("", true),
            ("tags = [\"blue\"]", true),
            ("tags = [\"fast\", \"blue\"]", true),
            ("tags = [\"blue\", \"green\"]", false),
            ("zones = [\"eu-2\", \"eu-1\"]", true),
            ("zones = [\"eu-2\"]", false),
            ("version = \">=1.4, <2\"", true),
            ("version = \"^1.5\"", false),
            ("metadata.tier = \"gold\"", true),
            ("metadata.tier = \"silver\"", false),
            ("metadata.rank = \"gold\"", false),
            ("tags = [\"blue\"]\nversion = \"2\"", false),
        ] {
            let filter = read(lines).unwrap();
            assert_eq!(filter.admits(&rich), admitted, "{lines}");
            assert_eq!(filter.admits(&plain), lines.is_empty(), "{lines}");
        }
        let odd = plain.with_version("latest");
        assert!(!read("version = \"*\"").unwrap().admits(&odd));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (lines, text) in [
            ("tags = []", "only.tags  is empty"),
            (
                "version = \"new\"",
                "write for example `version = \">=1.4, <2\"`",
            ),
            ("metadata.tier = 1", "only.metadata.tier"),
            ("zone = [\"a\"]", "did you mean `zones`?"),
        ] {
            let error = read(lines).unwrap_err();
            assert!(error.contains(text), "{lines}\n{error}");
        }
    }
}
