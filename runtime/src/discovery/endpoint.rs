//! An address of a service, and all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// The largest weight of an endpoint.
pub(super) const WEIGHT_MAX: u32 = 100;

/// One instance of a service: `http://orders-1:8080`, and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    url: Arc<str>,
    weight: u32,
    priority: u16,
    zone: Option<Arc<str>>,
    host: Option<Arc<str>>,
    /// `None` where nothing is known, as of most: sets can be large.
    about: Option<Arc<About>>,
}

/// What is known of an instance beside where it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct About {
    version: Option<String>,
    tags: BTreeSet<String>,
    metadata: BTreeMap<String, String>,
}

impl Endpoint {
    /// Reads an address: a scheme, a host, and a port where it is not the scheme's own. No path: that
    /// belongs to the call.
    ///
    /// # Errors
    /// What is wrong, continuing a sentence that begins with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err("has no scheme; write for example `http://orders:8080`".to_owned());
        };
        let scheme = scheme.to_ascii_lowercase();
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
        if scheme.is_empty() || !scheme.chars().all(plain) {
            return Err("has no scheme; write for example `http://orders:8080`".to_owned());
        }
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '?', '#']) {
            return Err("has a path; write it as the `base` of the client".to_owned());
        }
        if authority.contains('@') {
            return Err("has credentials in it; leave them out".to_owned());
        }
        let (host, port) = match authority.rsplit_once(':') {
            // The colons of an IPv6 address stand in brackets.
            Some((host, port)) if !port.contains(']') => (host, Some(port)),
            _ => (authority, None),
        };
        if port.is_some_and(|port| port.parse::<u16>().is_err()) {
            return Err("has a port that is none".to_owned());
        }
        let bracketed = host.starts_with('[') && host.ends_with(']');
        let of_host = |c: char| {
            c.is_ascii_alphanumeric()
                || matches!(c, '-' | '.' | '_')
                || bracketed && matches!(c, '[' | ']' | ':')
        };
        if host.is_empty() || !host.chars().all(of_host) {
            return Err("has a host that is none".to_owned());
        }
        let url = format!("{scheme}://{}", authority.to_ascii_lowercase());
        Ok(Self {
            url: url.into(),
            weight: 1,
            priority: 0,
            zone: None,
            host: None,
            about: None,
        })
    }

    /// Of this weight: how many calls it takes compared with others, from 1 to 100. A number outside
    /// is taken for the nearest one. 1 unless set.
    #[must_use]
    pub fn with_weight(mut self, weight: u32) -> Self {
        self.weight = weight.clamp(1, WEIGHT_MAX);
        self
    }

    /// Of this priority: the smaller the number, the earlier it is called. Those of a later one stand by
    /// for the time when none of the earlier ones can be called. 0 unless set.
    #[must_use]
    pub fn with_priority(mut self, priority: u16) -> Self {
        self.priority = priority;
        self
    }

    /// Called by this name, wherever it is: the name that its certificate is for, and that requests say.
    /// Without it, it is called as its address says.
    ///
    /// ```
    /// use interline::discovery::Endpoint;
    ///
    /// let endpoint = Endpoint::parse("https://10.0.0.7:8443")?.with_host("orders.internal")?;
    /// assert_eq!(endpoint.host(), Some("orders.internal"));
    /// assert_eq!(endpoint.authority(), "10.0.0.7:8443");
    /// # Ok::<(), String>(())
    /// ```
    ///
    /// # Errors
    /// What is wrong, continuing a sentence that begins with the name.
    pub fn with_host(mut self, host: &str) -> Result<Self, String> {
        let host = host_name(host)?;
        if self.host.as_deref() != Some(&host) {
            self.host = Some(host.into());
        }
        Ok(self)
    }

    /// In this zone, such as `eu-west-1a`.
    #[must_use]
    pub fn with_zone(mut self, zone: &str) -> Self {
        self.zone = Some(zone.into());
        self
    }

    /// Of this version, such as `1.4.2`.
    #[must_use]
    pub fn with_version(mut self, version: impl Into<String>) -> Self {
        self.about().version = Some(version.into());
        self
    }

    /// With this tag.
    #[must_use]
    pub fn with_tag(mut self, tag: impl Into<String>) -> Self {
        self.about().tags.insert(tag.into());
        self
    }

    /// With this said about `key`.
    #[must_use]
    pub fn with_metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.about().metadata.insert(key.into(), value.into());
        self
    }

    fn about(&mut self) -> &mut About {
        Arc::make_mut(self.about.get_or_insert_default())
    }

    /// The address without a slash at its end.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// How many calls it takes compared with others.
    #[must_use]
    pub fn weight(&self) -> u32 {
        self.weight
    }

    /// How early it is called: before all those whose number is larger.
    #[must_use]
    pub fn priority(&self) -> u16 {
        self.priority
    }

    /// Host and port; the scheme's own port where none is written.
    #[must_use]
    pub fn authority(&self) -> String {
        let scheme = self.scheme();
        let authority = &self.url[scheme.len() + "://".len()..];
        let has_port = authority
            .rsplit_once(':')
            .is_some_and(|(_, port)| !port.contains(']'));
        if has_port {
            return authority.to_owned();
        }
        let port = if scheme == "https" { 443 } else { 80 };
        format!("{authority}:{port}")
    }

    /// Where it is, if that is known.
    #[must_use]
    pub fn zone(&self) -> Option<&str> {
        self.zone.as_deref()
    }

    /// The name by which it is called, if not by its address.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }

    /// Its version, if that is known.
    #[must_use]
    pub fn version(&self) -> Option<&str> {
        self.about.as_ref()?.version.as_deref()
    }

    /// Its tags, in order.
    pub fn tags(&self) -> impl Iterator<Item = &str> {
        let tags = self.about.iter().flat_map(|about| &about.tags);
        tags.map(String::as_str)
    }

    /// Whether it has this tag.
    #[must_use]
    pub fn has_tag(&self, tag: &str) -> bool {
        let about = self.about.as_ref();
        about.is_some_and(|about| about.tags.contains(tag))
    }

    /// What it says about `key`.
    #[must_use]
    pub fn metadata(&self, key: &str) -> Option<&str> {
        let value = self.about.as_ref()?.metadata.get(key)?;
        Some(value)
    }

    /// Everything that it says, by key.
    pub fn all_metadata(&self) -> impl Iterator<Item = (&str, &str)> {
        let all = self.about.iter().flat_map(|about| &about.metadata);
        all.map(|(key, value)| (&**key, &**value))
    }

    /// The scheme, in small letters.
    #[must_use]
    pub fn scheme(&self) -> &str {
        self.url.split(':').next().unwrap_or_default()
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

/// All instances of a service, in a fixed order and each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointSet(Vec<Endpoint>);

impl EndpointSet {
    /// The endpoints in their order.
    pub fn iter(&self) -> impl Iterator<Item = &Endpoint> {
        self.0.iter()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn as_slice(&self) -> &[Endpoint] {
        &self.0
    }
}

/// The name of a host as it stands in an address: in small letters, and without the dot that a name of the
/// DNS may end with.
pub(crate) fn host_name(text: &str) -> Result<String, String> {
    let text = text.strip_suffix('.').unwrap_or(text);
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if text.is_empty() || text.starts_with('.') || !text.chars().all(plain) {
        return Err("is no name of a host; write for example `orders.internal`".to_owned());
    }
    if text.parse::<std::net::IpAddr>().is_ok() {
        return Err("is an address and no name".to_owned());
    }
    Ok(text.to_ascii_lowercase())
}

impl FromIterator<Endpoint> for EndpointSet {
    fn from_iter<I: IntoIterator<Item = Endpoint>>(endpoints: I) -> Self {
        let mut all: Vec<Endpoint> = endpoints.into_iter().collect();
        all.sort_by(|one, two| one.url.cmp(&two.url));
        // The sort is stable: of two that differ in the rest, the first one's word counts.
        all.dedup_by(|one, two| one.url == two.url);
        Self(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_write_them() {
        for (text, url) in [
            ("http://orders:8080", "http://orders:8080"),
            (" HTTP://Orders.Example/ ", "http://orders.example"),
            ("http://10.0.0.7:80", "http://10.0.0.7:80"),
            ("http://[::1]:8080", "http://[::1]:8080"),
            ("http://[fe80::1]", "http://[fe80::1]"),
            ("https://a_b-c", "https://a_b-c"),
        ] {
            assert_eq!(Endpoint::parse(text).unwrap().url(), url, "{text}");
        }
        assert_eq!(Endpoint::parse("HTTPS://x").unwrap().scheme(), "https");
        for (url, authority) in [
            ("http://a", "a:80"),
            ("https://a", "a:443"),
            ("https://a:80", "a:80"),
            ("http://[::1]", "[::1]:80"),
            ("http://[::1]:8080", "[::1]:8080"),
        ] {
            assert_eq!(Endpoint::parse(url).unwrap().authority(), authority);
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_reason() {
        for (text, reason) in [
            ("orders:8080", "has no scheme"),
            ("://orders", "has no scheme"),
            ("ht tp://orders", "has no scheme"),
            ("http://", "has a host that is none"),
            ("http://:80", "has a host that is none"),
            ("http://or ders", "has a host that is none"),
            ("http://orders:", "has a port that is none"),
            ("http://orders:70000", "has a port that is none"),
            ("http://orders/api", "has a path"),
            ("http://orders?x", "has a path"),
            ("http://me:secret@orders", "has credentials in it"),
            ("http://::1", "has a host that is none"),
        ] {
            let error = Endpoint::parse(text).unwrap_err();
            assert!(error.starts_with(reason), "{text}: {error}");
        }
    }

    #[test]
    fn a_name_is_one() {
        let endpoint = Endpoint::parse("https://10.0.0.7").unwrap();
        let named = |host| endpoint.clone().with_host(host);
        assert_eq!(named("Shop.Test.").unwrap().host(), Some("shop.test"));
        for text in ["", ".", ".test", "a b", "shop.test:80", "[::1]", "a/b"] {
            let error = named(text).unwrap_err();
            assert!(error.starts_with("is no name of a host"), "{text}: {error}");
        }
        assert_eq!(named("10.0.0.8").unwrap_err(), "is an address and no name");
    }

    #[test]
    fn a_set_has_each_endpoint_once() {
        let texts = ["http://b", "http://a:1", "http://B/", "http://a:1"];
        let set: EndpointSet = texts
            .iter()
            .map(|text| Endpoint::parse(text).unwrap())
            .collect();
        let urls: Vec<_> = set.iter().map(Endpoint::url).collect();
        assert_eq!(urls, ["http://a:1", "http://b"]);
    }
}
