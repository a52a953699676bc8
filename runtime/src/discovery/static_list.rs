//! Endpoints that stand in the configuration.

use crate::config::{Faults, Section, suggest::suggest};

use super::endpoint::WEIGHT_MAX;
use super::{Discovery, Endpoint, EndpointSet, Feed, Following, Query};

/// What the configuration says, beside other backends.
pub(super) struct StaticList(pub(super) EndpointSet);

impl Discovery for StaticList {
    fn kind(&self) -> &'static str {
        "static"
    }

    fn follow(&self, _: Query, feed: Feed) -> Following {
        let endpoints = self.0.clone();
        Box::pin(async move {
            feed.ask().answered(endpoints);
            std::future::pending::<()>().await;
        })
    }
}

/// Reads `urls`, of which each must have one of `schemes`. `None` after pushing what is wrong.
pub(super) fn read(
    section: &Section<'_>,
    schemes: &[&str],
    faults: &mut Faults,
) -> Option<EndpointSet> {
    const EXAMPLE: &str = "write for example `urls = [\"http://localhost:8080\"]`";
    let before = faults.len();
    let urls = section.strings("urls", faults);
    let Some(urls) = urls else {
        if faults.len() == before {
            faults.push(section.fault("urls", "is missing").with_help(EXAMPLE));
        }
        return None;
    };
    if urls.is_empty() {
        faults.push(section.fault("urls", "is empty").with_help(EXAMPLE));
        return None;
    }
    let mut endpoints = Vec::with_capacity(urls.len());
    for url in urls {
        match Endpoint::parse(&url) {
            Ok(endpoint) if schemes.contains(&endpoint.scheme()) => endpoints.push(endpoint),
            Ok(endpoint) => {
                let scheme = endpoint.scheme();
                let fault = section.fault("urls", format!("`{url}` has the scheme `{scheme}`"));
                let known: Vec<_> = schemes.iter().map(|scheme| format!("`{scheme}`")).collect();
                let help = format!("this program can call {}", known.join(" and "));
                faults.push(fault.with_help(help));
            }
            Err(why) => {
                faults.push(
                    section
                        .fault("urls", format!("`{url}` {why}"))
                        .with_help(EXAMPLE),
                );
            }
        }
    }
    read_weights(section, &mut endpoints, faults);
    read_zones(section, &mut endpoints, faults);
    (faults.len() == before).then(|| endpoints.into_iter().collect())
}

/// `weights."http://orders-1:8080" = 3`
fn read_weights(section: &Section<'_>, endpoints: &mut [Endpoint], faults: &mut Faults) {
    let weights = section.section("weights", faults);
    for url in weights.keys() {
        let weight = weights.integer(url, 1..=WEIGHT_MAX, faults);
        let Some(endpoint) = named(&weights, (url, url), endpoints, faults) else {
            continue;
        };
        if let Some(weight) = weight {
            *endpoint = endpoint.clone().with_weight(weight);
        }
    }
}

/// `zones.eu-1a = ["http://orders-1:8080"]`
fn read_zones(section: &Section<'_>, endpoints: &mut [Endpoint], faults: &mut Faults) {
    let zones = section.section("zones", faults);
    for zone in zones.keys() {
        for url in zones.strings(zone, faults).unwrap_or_default() {
            let Some(endpoint) = named(&zones, (zone, &url), endpoints, faults) else {
                continue;
            };
            match endpoint.zone() {
                Some(other) => {
                    let message = format!("names `{url}`, which is in zone `{other}` already");
                    faults.push(zones.fault(zone, message));
                }
                None => *endpoint = endpoint.clone().with_zone(zone),
            }
        }
    }
}

/// The endpoint with this address, which stands in the configuration as or under `key`.
fn named<'e>(
    section: &Section<'_>,
    (key, url): (&str, &str),
    endpoints: &'e mut [Endpoint],
    faults: &mut Faults,
) -> Option<&'e mut Endpoint> {
    let place = Endpoint::parse(url).ok().and_then(|wanted| {
        let known = |endpoint: &Endpoint| endpoint.url() == wanted.url();
        endpoints.iter().position(known)
    });
    if place.is_none() {
        let fault = section.fault(key, format!("names `{url}`, which is not among the `urls`"));
        let near = suggest(url, endpoints.iter().map(Endpoint::url));
        faults.push(match near {
            Some(near) => fault.with_help(format!("did you mean `{near}`?")),
            None => fault,
        });
    }
    endpoints.get_mut(place?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn read_from(urls: &str) -> Result<Vec<String>, String> {
        let toml = format!("[services.orders]\n{urls}");
        let config = Config::from_toml("interline.toml", &toml).unwrap();
        let mut faults = Faults::new();
        let set = read(&config.section("services.orders"), &["http"], &mut faults);
        match faults.into_result() {
            Ok(()) => Ok(set.unwrap().iter().map(ToString::to_string).collect()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn weights_and_zones_belong_to_addresses() {
        let config = Config::from_toml(
            "interline.toml",
            "[services.orders]\nurls = [\"http://b:1\", \"http://a:1\"]\n\
             weights.\"http://B:1\" = 3\nzones.eu-1 = [\"http://a:1\"]",
        );
        let config = config.unwrap();
        let mut faults = Faults::new();
        let set = read(&config.section("services.orders"), &["http"], &mut faults);
        faults.into_result().unwrap();
        let set = set.unwrap();
        let seen: Vec<_> = set
            .iter()
            .map(|endpoint| (endpoint.url(), endpoint.weight(), endpoint.zone()))
            .collect();
        assert_eq!(
            seen,
            [("http://a:1", 1, Some("eu-1")), ("http://b:1", 3, None)]
        );
        for (lines, mistake) in [
            ("weights.\"http://a:2\" = 3", "did you mean `http://a:1`?"),
            ("weights.\"http://a:1\" = 0", "must be at least 1"),
            ("zones.x = [\"http://c\"]", "not among the `urls`"),
            (
                "zones.x = [\"http://a:1\"]\nzones.y = [\"http://a:1\"]",
                "is in zone `x` already",
            ),
        ] {
            let error = read_from(&format!("urls = [\"http://a:1\"]\n{lines}")).unwrap_err();
            assert!(error.contains(mistake), "{error}");
        }
    }

    #[test]
    fn every_wrong_address_is_named() {
        let read = read_from("urls = [\"http://b:1\", \"http://a:1\"]");
        assert_eq!(read.unwrap(), ["http://a:1", "http://b:1"]);
        assert!(
            read_from("")
                .unwrap_err()
                .contains("services.orders.urls  is missing")
        );
        assert!(read_from("urls = []").unwrap_err().contains("is empty"));
        let error = read_from("urls = [\"orders\", \"ftp://x\", \"http://y\"]").unwrap_err();
        assert!(error.contains("2 mistakes"), "{error}");
        assert!(error.contains("`orders` has no scheme"), "{error}");
        assert!(error.contains("`ftp://x` has the scheme `ftp`"), "{error}");
        assert!(error.contains("interline.toml:2"), "{error}");
    }
}
