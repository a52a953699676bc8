//! What the server and the client crate report, in the user's words, classed by what can be done.

use std::error::Error as StdError;
use std::fmt;

use redis::{ErrorKind, RedisError};

/// Where a connection leads, without credentials, for messages.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) host: String,
    pub(crate) user: String,
    pub(crate) database: i64,
    pub(crate) tls: bool,
}

/// What kind of failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FailureKind {
    /// Wrong user or password.
    Authentication,
    /// Wrong configuration.
    Configuration,
    /// The connection was lost on the way.
    ConnectionLost,
    /// A consumer group, or the stream it belongs to, does not exist.
    NoGroup,
    /// The user may not do this.
    Permission,
    /// The server refused, for the moment.
    Refused,
    /// It took too long.
    Timeout,
    /// The network, or the server is down.
    Unreachable,
    /// The server lacks something that is needed.
    Unsupported,
    /// A key holds something else than what it is used for.
    WrongType,
}

/// Something that Redis could not do. Its text never holds a secret.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) kind: FailureKind,
    pub(crate) message: String,
    /// Nothing listened there: asking again soon costs next to nothing.
    pub(crate) refused: bool,
}

impl Failure {
    pub(crate) fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            refused: false,
        }
    }

    /// Whether it is about what was asked for, and anything else may well work.
    pub(crate) fn is_of_the_key(&self) -> bool {
        use FailureKind::{Permission, Refused, WrongType};
        matches!(self.kind, Permission | Refused | WrongType)
    }

    /// The failure of an attempt to connect.
    pub(super) fn connecting(place: &Place, error: &RedisError) -> Self {
        let host = &place.host;
        match error.code() {
            Some("WRONGPASS") => {
                return Self::new(
                    FailureKind::Authentication,
                    format!("{host} refused the credentials of user `{}`", place.user),
                );
            }
            Some("NOAUTH") => {
                return Self::new(
                    FailureKind::Authentication,
                    format!("{host} wants a password and none is set (`password`, or in the url)"),
                );
            }
            Some("NOPERM") => {
                let what = plain(error.detail().unwrap_or("a command"));
                return Self::new(
                    FailureKind::Permission,
                    format!("user `{}` of {host} has no permission: {what}", place.user),
                );
            }
            Some("NOPROTO") => return Self::too_old(place, "no RESP3"),
            _ => {}
        }
        let detail = error.detail().unwrap_or_default();
        match error.kind() {
            ErrorKind::RESP3NotSupported => Self::too_old(place, "no RESP3"),
            ErrorKind::AuthenticationFailed => Self::new(
                FailureKind::Authentication,
                format!("{host} refused the credentials of user `{}`", place.user),
            ),
            // The server words this as a plain error: `AUTH` with a password, and none is configured.
            _ if detail.contains("without any password configured") => Self::new(
                FailureKind::Authentication,
                format!("{host} has no password configured, but one is set here"),
            ),
            _ if detail.contains("DB index is out of range") => Self::new(
                FailureKind::Configuration,
                format!("{host} has no database {}", place.database),
            ),
            ErrorKind::Io => Self::io(place, error),
            ErrorKind::Parse => Self::new(
                FailureKind::Configuration,
                format!(
                    "{host} does not speak the protocol of Redis; the url needs its port (6379), and \
                     `rediss://` where it takes TLS only"
                ),
            ),
            _ => Self::operation(host, error),
        }
    }

    fn too_old(place: &Place, why: &str) -> Self {
        let (major, minor) = super::VERSION_MIN;
        Self::new(
            FailureKind::Unsupported,
            format!(
                "{} is older than the {major}.{minor} that is needed ({why})",
                place.host
            ),
        )
    }

    fn io(place: &Place, error: &RedisError) -> Self {
        let host = &place.host;
        let text = plain(&error.to_string());
        let refused = error.is_connection_refusal();
        if place.tls && mentions_tls(error) {
            // A certificate stays wrong until somebody acts; the peer hanging up in the handshake
            // may be a server on its way down.
            return Self::new(
                FailureKind::Configuration,
                format!("the TLS handshake with {host} failed: {text}"),
            );
        }
        let text = if refused {
            format!("nothing listens at {host}")
        } else if error.is_timeout() {
            format!("{host} did not answer in time")
        } else {
            format!("the connection to {host} failed: {text}")
        };
        Self {
            refused,
            ..Self::new(FailureKind::Unreachable, text)
        }
    }

    /// The failure of an operation on `what`, such as "stream `s`".
    pub(crate) fn operation(what: &str, error: &RedisError) -> Self {
        let detail = plain(error.detail().unwrap_or_default());
        let told = |kind, text: String| Self::new(kind, format!("{what}: {text}"));
        match error.code() {
            Some("NOGROUP") => return told(FailureKind::NoGroup, missing_group(&detail)),
            // A blocked reader is told like this that its stream was deleted.
            Some("UNBLOCKED") => return told(FailureKind::NoGroup, detail),
            Some("NOPERM") => {
                return told(FailureKind::Permission, format!("no permission: {detail}"));
            }
            Some("WRONGTYPE") => {
                return told(
                    FailureKind::WrongType,
                    "the key holds something else than a stream".to_owned(),
                );
            }
            Some("OOM") => {
                return told(
                    FailureKind::Refused,
                    "the server is out of the memory it may use (`maxmemory`)".to_owned(),
                );
            }
            Some("READONLY") => {
                return told(
                    FailureKind::Refused,
                    "the server is a replica and takes no writes".to_owned(),
                );
            }
            Some("MISCONF") => {
                return told(
                    FailureKind::Refused,
                    format!("the server takes no writes because it cannot persist: {detail}"),
                );
            }
            Some("CROSSSLOT") => {
                return told(
                    FailureKind::Configuration,
                    "its keys lie in different slots of the cluster".to_owned(),
                );
            }
            Some("MOVED" | "ASK") => {
                return told(
                    FailureKind::Unsupported,
                    "the server is a member of a cluster that keeps it elsewhere, and the members \
                     of a cluster are not followed"
                        .to_owned(),
                );
            }
            Some("WRONGPASS" | "NOAUTH") => {
                return told(
                    FailureKind::Authentication,
                    "the server no longer takes the credentials".to_owned(),
                );
            }
            _ => {}
        }
        // A script reports what one of its commands met as a plain error.
        for (code, kind) in [
            ("WRONGTYPE", FailureKind::WrongType),
            ("NOPERM", FailureKind::Permission),
            ("NOGROUP", FailureKind::NoGroup),
            ("can't run this command", FailureKind::Permission),
            (
                "can't access at least one of the keys",
                FailureKind::Permission,
            ),
        ] {
            if detail.contains(code) {
                return told(kind, detail);
            }
        }
        match error.kind() {
            ErrorKind::Io if error.is_timeout() => {
                told(FailureKind::Timeout, "no answer in time".to_owned())
            }
            ErrorKind::Io => told(
                FailureKind::ConnectionLost,
                format!("the connection was lost ({})", plain(&error.to_string())),
            ),
            _ => told(FailureKind::Refused, plain(&error.to_string())),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

fn missing_group(detail: &str) -> String {
    match detail.split(" in XREADGROUP").next() {
        Some(text) if !text.is_empty() => text.to_owned(),
        _ => "the consumer group does not exist".to_owned(),
    }
}

fn mentions_tls(error: &RedisError) -> bool {
    let mut next: Option<&(dyn StdError + 'static)> = StdError::source(error);
    while let Some(inner) = next {
        let text = inner.to_string().to_ascii_lowercase();
        let words = [
            "certificate",
            "tls",
            "handshake",
            "alert",
            "invalid dns name",
        ];
        if words.iter().any(|word| text.contains(word)) {
            return true;
        }
        next = inner.source();
    }
    false
}

/// A foreign text in one line of bounded length.
fn plain(text: &str) -> String {
    let mut line: String = text
        .chars()
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .take(300)
        .collect();
    line.truncate(line.trim_end().trim_end_matches('.').len());
    line
}
