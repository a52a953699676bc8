//! The url of a cluster.

use crate::messaging::BrokerErrorKind;

use super::{NEEDS_FEATURE, PORT_DEFAULT, Wrong};

/// What a url says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) tls: bool,
    pub(super) servers: String,
    pub(super) username: Option<String>,
    pub(super) password: Option<String>,
}

pub(super) fn parse(url: &str) -> Result<Address, Wrong> {
    let wrong = |message: &str| (BrokerErrorKind::Configuration, message.to_owned());
    let (scheme, rest) = url
        .split_once("://")
        .filter(|(scheme, _)| matches!(*scheme, "kafka" | "kafkas"))
        .ok_or_else(|| wrong("must begin with `kafka://` or `kafkas://`"))?;
    let tls = scheme == "kafkas";
    let (userinfo, servers) = match rest.rsplit_once('@') {
        Some((userinfo, servers)) => (Some(userinfo), servers),
        None => (None, rest),
    };
    if (tls || userinfo.is_some()) && cfg!(not(feature = "kafka-tls")) {
        return Err(wrong(NEEDS_FEATURE));
    }
    let servers = servers.strip_suffix('/').unwrap_or(servers);
    let mut named = Vec::new();
    for server in servers.split(',').map(str::trim) {
        named.push(
            with_port(server)
                .ok_or_else(|| wrong("is not of the form `kafka://host:port,host:port`"))?,
        );
    }
    let (username, password) = match userinfo {
        None => (None, None),
        Some(userinfo) => {
            let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
            let decoded = |text: &str| {
                decode(text).ok_or_else(|| wrong("has a `%` that two hex digits do not follow"))
            };
            (Some(decoded(user)?), Some(decoded(password)?))
        }
    };
    Ok(Address {
        tls,
        servers: named.join(","),
        username,
        password,
    })
}

/// `host:port` with the port filled in; a colon inside brackets belongs to an IPv6 address.
fn with_port(server: &str) -> Option<String> {
    let ok =
        |host: &str| !host.is_empty() && !host.contains(['/', '?', ' ', '@']) && host.is_ascii();
    match server.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => {
            port.parse::<u16>().ok().filter(|_| ok(host))?;
            Some(server.to_owned())
        }
        _ => ok(server).then(|| format!("{server}:{PORT_DEFAULT}")),
    }
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
        decoded.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(decoded).ok()
}
