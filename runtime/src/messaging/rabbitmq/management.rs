//! The server's management API, as far as the comparison of a topology needs it: AMQP can ask for a queue by
//! its name, and cannot list any.

use std::io;
use std::time::Duration;

use futures_util::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use lapin::tcp::AMQPUriTcpExt;
use lapin::uri::{AMQPScheme, AMQPUri};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokio::time::timeout;

use super::errors::plain;
#[cfg(feature = "tls")]
use super::tls::Connector;

/// How long the server may take for one answer.
const ANSWER: Duration = Duration::from_secs(30);
/// The longest answer: that of a server with some hundred thousand queues.
const BYTES_MAX: u64 = 256 << 20;
const PORT: u16 = 15_672;
const PORT_TLS: u16 = 15_671;

/// Where the API is, and who asks.
pub(super) struct Management {
    /// As if it were AMQP: host, port and user.
    uri: AMQPUri,
    /// What stands before `/api`.
    path: String,
    vhost: String,
    #[cfg(feature = "tls")]
    tls: Option<Connector>,
}

/// A queue as the API lists it.
#[derive(Debug, Deserialize)]
pub(super) struct Queue {
    pub(super) name: String,
    /// Of one connection, and gone with it.
    #[serde(default)]
    pub(super) exclusive: bool,
}

/// A binding of a queue or exchange to an exchange.
#[derive(Debug, Deserialize)]
pub(super) struct Binding {
    /// Empty for the one that every queue has under its own name.
    pub(super) source: String,
    pub(super) destination: String,
    pub(super) destination_type: String,
    pub(super) routing_key: String,
    #[serde(default)]
    pub(super) arguments: Map<String, Value>,
}

/// Everything in the virtual host that matters here.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) queues: Vec<Queue>,
    pub(super) bindings: Vec<Binding>,
}

/// The parts of an address of the API.
pub(super) struct Address {
    uri: AMQPUri,
    path: String,
    pub(super) tls: bool,
    names_user: bool,
}

impl Address {
    /// What is wrong with it is said without its password.
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        let (tls, rest) = match url.split_once("://") {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            _ => return Err("must begin with `http://` or `https://`".to_owned()),
        };
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if path.contains('?') {
            return Err("takes nothing behind a `?`".to_owned());
        }
        let place = authority.rsplit('@').next().unwrap_or_default();
        let has_port = place
            .rsplit_once(':')
            .is_some_and(|(_, port)| !port.ends_with(']'));
        let wrong = || "is not a valid url".to_owned();
        let mut uri: AMQPUri = format!("amqp://{authority}/")
            .parse()
            .map_err(|_| wrong())?;
        // The parser takes no host for this machine.
        if place.is_empty() || place.starts_with(':') {
            return Err(wrong());
        }
        if let Some(address) = place
            .strip_prefix('[')
            .and_then(|rest| rest.split_once(']'))
        {
            address.0.clone_into(&mut uri.authority.host);
        }
        if !has_port {
            uri.authority.port = if tls { PORT_TLS } else { PORT };
        }
        uri.scheme = AMQPScheme::AMQP;
        Ok(Self {
            uri,
            path: path.trim_end_matches('/').to_owned(),
            tls,
            names_user: authority.contains('@'),
        })
    }
}

impl Management {
    /// At an address, as the user that it names or else as that of `broker`.
    pub(super) fn new(
        address: Address,
        broker: &AMQPUri,
        #[cfg(feature = "tls")] tls: Option<Connector>,
    ) -> Self {
        let mut uri = address.uri;
        if !address.names_user {
            uri.authority.userinfo = broker.authority.userinfo.clone();
        }
        Self {
            uri,
            path: address.path,
            vhost: broker.vhost.clone(),
            #[cfg(feature = "tls")]
            tls,
        }
    }

    /// What there is; why it cannot be seen.
    pub(super) async fn list(&self) -> Result<Listed, String> {
        Ok(Listed {
            queues: self.get("queues", "name,exclusive").await?,
            bindings: self
                .get(
                    "bindings",
                    "source,destination,destination_type,routing_key,arguments",
                )
                .await?,
        })
    }

    async fn get<T: DeserializeOwned>(&self, what: &str, columns: &str) -> Result<T, String> {
        let place = format!("{}:{}", self.uri.authority.host, self.uri.authority.port);
        let path = format!(
            "{}/api/{what}/{}?columns={columns}&disable_stats=true",
            self.path,
            encoded(&self.vhost)
        );
        let asking = async {
            let runtime = lapin::runtime::default_runtime().map_err(io::Error::other)?;
            let stream = self.uri.connect_async(&runtime).await?;
            #[cfg(feature = "tls")]
            if let Some(tls) = &self.tls {
                let host = &self.uri.authority.host;
                return self.ask(stream.into_rustls(tls, host).await?, &path).await;
            }
            self.ask(stream, &path).await
        };
        let answer = match timeout(ANSWER, asking).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                let text = plain(&error.to_string());
                return Err(format!("the management API at {place}: {text}"));
            }
            Err(_) => {
                return Err(format!(
                    "the management API at {place} did not answer in time"
                ));
            }
        };
        let user = &self.uri.authority.userinfo.username;
        match read(&answer) {
            Some((200, body)) => serde_json::from_slice(body).map_err(|error| {
                format!("the management API at {place} answers with something else: {error}")
            }),
            Some((401 | 403, _)) => Err(format!(
                "the management API at {place} refused user `{user}`, who needs the tag `management` and \
                 access to virtual host `{}`",
                self.vhost
            )),
            Some((404, _)) => Err(format!(
                "there is no management API at {place}, or it has no virtual host `{}`",
                self.vhost
            )),
            Some((status, _)) => Err(format!(
                "the management API at {place} answered with status {status}"
            )),
            None => Err(format!("what listens at {place} is no management API")),
        }
    }

    /// In the form of HTTP 1.0, whose answers end with the connection.
    async fn ask(
        &self,
        mut stream: impl AsyncRead + AsyncWrite + Unpin,
        path: &str,
    ) -> io::Result<Vec<u8>> {
        let authority = &self.uri.authority;
        let user = &authority.userinfo;
        let request = format!(
            "GET {path} HTTP/1.0\r\nhost: {}:{}\r\nauthorization: Basic {}\r\n\
             accept: application/json\r\nuser-agent: interline\r\n\r\n",
            authority.host,
            authority.port,
            base64(format!("{}:{}", user.username, user.password).as_bytes())
        );
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;
        let mut answer = Vec::new();
        let read = stream.take(BYTES_MAX).read_to_end(&mut answer).await;
        match read {
            // Not everybody takes leave; what came shows whether it is all.
            Err(error) if answer.is_empty() => Err(error),
            _ => Ok(answer),
        }
    }
}

/// Status and body of an answer.
fn read(answer: &[u8]) -> Option<(u16, &[u8])> {
    let end = answer.windows(4).position(|at| at == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?;
    Some((status.parse().ok()?, &answer[end + 4..]))
}

/// A name as one segment of a path.
fn encoded(name: &str) -> String {
    let mut written = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            written.push(char::from(byte));
        } else {
            written.push_str(&format!("%{byte:02X}"));
        }
    }
    written
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut written = String::new();
    for three in bytes.chunks(3) {
        let at = |index: usize| u32::from(three.get(index).copied().unwrap_or(0));
        let all = at(0) << 16 | at(1) << 8 | at(2);
        for place in 0..4 {
            if place > three.len() {
                written.push('=');
                continue;
            }
            let six = all >> (18 - 6 * place) & 63;
            written.push(char::from(LETTERS[usize::try_from(six).unwrap_or(0)]));
        }
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(url: &str) -> Result<String, String> {
        let address = Address::parse(url)?;
        let authority = &address.uri.authority;
        Ok(format!(
            "{} {} {}{} {}",
            authority.userinfo.username, authority.host, authority.port, address.path, address.tls
        ))
    }

    #[test]
    fn an_address_is_read() {
        for (url, expected) in [
            ("http://me:p%40ss@rabbit:1/", "me rabbit 1 false"),
            ("http://rabbit", "guest rabbit 15672 false"),
            ("https://rabbit/mq/", "guest rabbit 15671/mq true"),
            ("http://[::1]:7", "guest ::1 7 false"),
            ("http://[::1]", "guest ::1 15672 false"),
        ] {
            assert_eq!(shown(url).as_deref(), Ok(expected), "{url}");
        }
        let address = Address::parse("http://me:p%40ss@rabbit").unwrap();
        assert_eq!(address.uri.authority.userinfo.password, "p@ss");
        for url in [
            "amqp://rabbit",
            "rabbit:15672",
            "http://",
            "http://a b",
            "http://a?x",
        ] {
            let error = shown(url).unwrap_err();
            assert!(!error.is_empty(), "{url}");
        }
    }

    #[test]
    fn the_user_is_that_of_the_broker_unless_it_names_one() {
        let broker: AMQPUri = "amqp://app:secret@rabbit/eu%2f".parse().unwrap();
        for (url, user) in [("http://rabbit", "app"), ("http://me:x@rabbit", "me")] {
            let management = Management::new(
                Address::parse(url).unwrap(),
                &broker,
                #[cfg(feature = "tls")]
                None,
            );
            assert_eq!(management.uri.authority.userinfo.username, user);
            assert_eq!(encoded(&management.vhost), "eu%2F");
        }
    }

    #[test]
    fn an_answer_is_read() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]";
        assert_eq!(read(answer), Some((200, &b"[]"[..])));
        assert_eq!(
            read(b"HTTP/1.0 401 Unauthorized\r\n\r\n").map(|(status, _)| status),
            Some(401)
        );
        for other in [&b"AMQP\0\0\x09\x01"[..], b"", b"HTTP/1.1 200 OK\r\n"] {
            assert_eq!(read(other), None);
        }
    }

    #[test]
    fn credentials_are_encoded() {
        for (plain, expected) in [
            ("", ""),
            ("a", "YQ=="),
            ("ab", "YWI="),
            ("abc", "YWJj"),
            ("guest:guest", "Z3Vlc3Q6Z3Vlc3Q="),
            ("\u{ff}\u{fe}", "w7/Dvg=="),
        ] {
            assert_eq!(base64(plain.as_bytes()), expected, "{plain}");
        }
    }
}
