//! As much of a URL as the address of a test server needs.

/// The parts of `scheme://userinfo@host:port/path`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Address<'a> {
    pub(super) scheme: &'a str,
    pub(super) userinfo: Option<&'a str>,
    pub(super) host: &'a str,
    pub(super) port: Option<u16>,
}

impl<'a> Address<'a> {
    pub(super) fn parse(url: &'a str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let authority = rest.split(['/', '?']).next()?;
        let (userinfo, place) = match authority.rsplit_once('@') {
            Some((userinfo, place)) => (Some(userinfo), place),
            None => (None, authority),
        };
        // A colon inside brackets belongs to an IPv6 address.
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port.parse().ok()?)),
            _ => (place, None),
        };
        (!host.is_empty()).then_some(Self {
            scheme,
            userinfo,
            host,
            port,
        })
    }
}

/// `url` with its path replaced by the one segment `segment`.
pub(super) fn with_path(url: &str, segment: &str) -> String {
    let start = url.find("://").map_or(0, |at| at + 3);
    let end = url[start..]
        .find(['/', '?'])
        .map_or(url.len(), |at| start + at);
    let query = url[end..].find('?').map_or("", |at| &url[end + at..]);
    format!("{}/{}{query}", &url[..end], percent_encoded(segment))
}

fn percent_encoded(segment: &str) -> String {
    segment
        .bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02x}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_apart() {
        assert_eq!(
            Address::parse("amqps://me:p@ss@broker.example:5671/orders"),
            Some(Address {
                scheme: "amqps",
                userinfo: Some("me:p@ss"),
                host: "broker.example",
                port: Some(5671)
            })
        );
        assert_eq!(
            Address::parse("amqp://[::1]"),
            Some(Address {
                scheme: "amqp",
                userinfo: None,
                host: "[::1]",
                port: None
            })
        );
        assert_eq!(Address::parse("localhost:5672"), None);
        assert_eq!(Address::parse("amqp://host:port"), None);
        assert_eq!(Address::parse("amqp:///orders"), None);
    }

    #[test]
    fn the_path_is_replaced_and_the_query_kept() {
        assert_eq!(with_path("amqp://h:1/%2f", "a/b"), "amqp://h:1/a%2fb");
        assert_eq!(
            with_path("amqp://h:1?heartbeat=5", "x"),
            "amqp://h:1/x?heartbeat=5"
        );
        assert_eq!(
            with_path("amqp://h:1/%2f?heartbeat=5", "x"),
            "amqp://h:1/x?heartbeat=5"
        );
    }
}
