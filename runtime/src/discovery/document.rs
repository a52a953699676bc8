//! Endpoints of services as they stand in a file.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::endpoint::WEIGHT_MAX;
use super::{Endpoint, EndpointSet};
use crate::config::suggest::suggest;

/// The services of a file with their endpoints, not yet looked at.
#[derive(Debug, Deserialize, Serialize)]
#[serde(transparent)]
pub(super) struct Document(BTreeMap<String, Vec<Entry>>);

/// An endpoint as it is written: an address, or a table with one.
#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Entry(Written);

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Written {
    url: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    zone: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tags: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    weight: Option<u32>,
    #[serde(default, skip_serializing_if = "is_first")]
    priority: u16,
}

fn is_first(priority: &u16) -> bool {
    *priority == 0
}

impl Written {
    fn of(endpoint: &Endpoint) -> Self {
        let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        Self {
            url: endpoint.url().to_owned(),
            host: endpoint.host().map(str::to_owned),
            zone: endpoint.zone().map(str::to_owned),
            version: endpoint.version().map(str::to_owned),
            tags: endpoint.tags().map(str::to_owned).collect(),
            metadata: endpoint.all_metadata().map(owned).collect(),
            weight: Some(endpoint.weight()).filter(|weight| *weight != 1),
            priority: endpoint.priority(),
        }
    }

    fn endpoint(&self) -> Result<Endpoint, String> {
        let mut endpoint = Endpoint::parse(&self.url)?.with_priority(self.priority);
        if let Some(host) = &self.host {
            let named = endpoint.with_host(host);
            endpoint = named.map_err(|why| format!("has a host, and `{host}` {why}"))?;
        }
        if let Some(zone) = &self.zone {
            endpoint = endpoint.with_zone(zone);
        }
        if let Some(version) = &self.version {
            endpoint = endpoint.with_version(version);
        }
        for tag in &self.tags {
            endpoint = endpoint.with_tag(tag);
        }
        for (key, value) in &self.metadata {
            endpoint = endpoint.with_metadata(key, value);
        }
        match self.weight {
            None => Ok(endpoint),
            Some(weight @ 1..=WEIGHT_MAX) => Ok(endpoint.with_weight(weight)),
            Some(weight) => Err(format!(
                "has the weight {weight}; write one from 1 to {WEIGHT_MAX}"
            )),
        }
    }
}

impl Document {
    /// One service with its endpoints.
    pub(super) fn of(service: &str, endpoints: &EndpointSet) -> Self {
        let entries = endpoints.iter().map(|one| Entry(Written::of(one)));
        Self(BTreeMap::from([(service.to_owned(), entries.collect())]))
    }

    pub(super) fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("texts, lists and maps are JSON")
    }

    /// Reads TOML, or JSON. The error says the line and what is wrong.
    pub(super) fn parse(text: &str, is_json: bool) -> Result<Self, String> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        if is_json {
            return serde_json::from_str(text).map_err(|error| error.to_string());
        }
        toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(text.len(), |span| span.start);
            let line = text.get(..at).unwrap_or(text).matches('\n').count() + 1;
            format!("line {line}: {}", error.message())
        })
    }

    /// Whether it tells of this service alone, and of one endpoint.
    pub(super) fn is_of_one_instance(&self, service: &str) -> bool {
        let endpoints = self.endpoints(service);
        self.0.len() == 1 && endpoints.is_ok_and(|endpoints| endpoints.len() == 1)
    }

    /// The endpoints of a service. The error says what is wrong.
    pub(super) fn endpoints(&self, service: &str) -> Result<EndpointSet, String> {
        let Some(entries) = self.0.get(service) else {
            let near = suggest(service, self.0.keys().map(String::as_str));
            let near = near.map_or(String::new(), |near| format!(" (there is `{near}`)"));
            return Err(format!("does not name the service `{service}`{near}"));
        };
        let endpoints = entries.iter().map(|Entry(written)| {
            let endpoint = written.endpoint();
            endpoint.map_err(|why| format!("{service}: `{}` {why}", written.url))
        });
        endpoints.collect()
    }
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Entry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address such as \"http://orders:8080\", or a table with `url`")
            }

            fn visit_str<E>(self, url: &str) -> Result<Entry, E> {
                let url = url.to_owned();
                Ok(Entry(Written {
                    url,
                    ..Written::default()
                }))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Entry, A::Error> {
                Written::deserialize(MapAccessDeserializer::new(map)).map(Entry)
            }
        }

        deserializer.deserialize_any(Either)
    }
}
