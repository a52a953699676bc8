//! Endpoints that stand in the configuration.

use crate::config::{Faults, Section};

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
    (faults.len() == before).then(|| endpoints.into_iter().collect())
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
