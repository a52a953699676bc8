//! How a Redis server is reached: the keys that every section has that names one.

use std::path::PathBuf;
use std::time::Duration;

use redis::io::tcp::TcpSettings;
#[cfg(feature = "tls")]
use redis::{ClientTlsConfig, TlsCertificates};
use redis::{ConnectionInfo, IntoConnectionInfo, ProtocolVersion};

use crate::config::{Faults, Secret, Section};

use super::errors::{Failure, FailureKind, Place};

const URL_DEFAULT: &str = "redis://localhost";
const DEFAULT_USER: &str = "default";
const SECONDS_10: Duration = Duration::from_secs(10);

/// How a server is reached.
///
/// | key | default | |
/// |---|---|---|
/// | `url` | `redis://localhost` | a text, `{ file = ".." }` or `{ env = ".." }`, read again at each reconnect |
/// | `username`, `password` | those of the url | an ACL user; secrets may come from a file or a variable |
/// | `database` | that of the url | the number of a database |
/// | `connect_timeout` | `10s` | |
/// | `command_timeout` | `10s` | how long the server may take for one answer |
/// | `tls.ca_file` | the system's | PEM |
/// | `tls.certificate_file`, `tls.key_file` | | PEM, for a client certificate |
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    url: Secret,
    username: Option<String>,
    password: Option<Secret>,
    database: Option<i64>,
    pub(crate) connect_timeout: Duration,
    pub(crate) command_timeout: Duration,
    #[cfg_attr(
        not(feature = "tls"),
        expect(dead_code, reason = "checked in every build, used by one with TLS")
    )]
    tls: Tls,
}

#[derive(Clone, Debug, Default)]
struct Tls {
    #[cfg_attr(
        not(feature = "tls"),
        expect(dead_code, reason = "checked in every build, used by one with TLS")
    )]
    ca_file: Option<PathBuf>,
    certificate_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
}

/// Everything that one attempt to connect needs, read anew for it.
pub(crate) struct Target {
    pub(super) info: ConnectionInfo,
    #[cfg(feature = "tls")]
    pub(super) certificates: Option<TlsCertificates>,
    pub(super) connect_timeout: Duration,
    pub(crate) place: Place,
}

impl Settings {
    /// Reads the section; what is wrong goes to `faults`.
    pub(crate) fn read(section: &Section<'_>, faults: &mut Faults) -> Self {
        let url = section.secret("url", faults);
        let url_key = format!("{}.url", section.path());
        let settings = Self {
            url: url.unwrap_or_else(|| Secret::literal(&url_key, URL_DEFAULT)),
            username: section.string("username", faults),
            password: section.secret("password", faults),
            database: section.integer::<i64>("database", 0..=1_000_000, faults),
            connect_timeout: section
                .nonzero_duration("connect_timeout", faults)
                .unwrap_or(SECONDS_10),
            command_timeout: section
                .nonzero_duration("command_timeout", faults)
                .unwrap_or(SECONDS_10),
            tls: Tls::read(&section.section("tls", faults), faults),
        };
        // A secret in a file or a variable may appear only later; what is written out is checked now.
        if let Ok(Err(failure)) = settings.url.read().map(|url| settings.parse(url.expose())) {
            let fault = section.fault("url", failure.message);
            faults.push(fault.with_help("write for example `redis://user:password@host:6379/0`"));
        }
        settings
    }

    /// What the next attempt to connect uses.
    pub(crate) fn target(&self) -> Result<Target, Failure> {
        let unreadable = |error: &dyn std::fmt::Display| {
            Failure::new(FailureKind::Configuration, error.to_string())
        };
        let url = self.url.read().map_err(|error| unreadable(&error))?;
        let (mut info, place) = self.parse(url.expose())?;
        if let Some(password) = &self.password {
            let password = password.read().map_err(|error| unreadable(&error))?;
            let settings = info.redis_settings().clone();
            info = info.set_redis_settings(settings.set_password(password.expose()));
        }
        Ok(Target {
            info,
            #[cfg(feature = "tls")]
            certificates: if place.tls {
                Some(self.tls.load()?)
            } else {
                None
            },
            connect_timeout: self.connect_timeout,
            place,
        })
    }

    fn parse(&self, url: &str) -> Result<(ConnectionInfo, Place), Failure> {
        let wrong = |message: &str| Failure::new(FailureKind::Configuration, message);
        let tls = match url.split_once("://").map(|(scheme, _)| scheme) {
            Some("redis") => false,
            Some("rediss") if cfg!(feature = "tls") => true,
            Some("rediss") => {
                return Err(wrong(
                    "asks for TLS (`rediss://`), which this build leaves out; add the feature `tls` of interline",
                ));
            }
            _ => return Err(wrong("must begin with `redis://` or `rediss://`")),
        };
        if url.contains('#') {
            return Err(wrong(
                "must not have a part after `#`; a certificate is always checked",
            ));
        }
        // Only the crate's own words are shown: an error of the parser could repeat the url.
        let info = url
            .into_connection_info()
            .map_err(|_| wrong("is not a valid Redis url"))?;
        let mut settings = info
            .redis_settings()
            .clone()
            .set_protocol(ProtocolVersion::RESP3)
            .set_lib_name("interline", env!("CARGO_PKG_VERSION"));
        if let Some(username) = &self.username {
            settings = settings.set_username(username);
        }
        if let Some(database) = self.database {
            settings = settings.set_db(database);
        }
        let place = Place {
            host: info.addr().to_string(),
            user: settings.username().unwrap_or(DEFAULT_USER).to_owned(),
            database: settings.db(),
            tls,
        };
        // Small requests must not wait for the answer to the one before.
        let info = info
            .set_redis_settings(settings)
            .set_tcp_settings(TcpSettings::default().set_nodelay(true));
        Ok((info, place))
    }
}

impl Tls {
    fn read(section: &Section<'_>, faults: &mut Faults) -> Self {
        let mut path = |key: &str| section.string(key, faults).map(PathBuf::from);
        let tls = Self {
            ca_file: path("ca_file"),
            certificate_file: path("certificate_file"),
            key_file: path("key_file"),
        };
        match (&tls.certificate_file, &tls.key_file) {
            (Some(_), None) => {
                faults.push(section.fault("key_file", "is missing beside `certificate_file`"));
            }
            (None, Some(_)) => {
                faults.push(section.fault("certificate_file", "is missing beside `key_file`"));
            }
            _ => {}
        }
        tls
    }

    #[cfg(feature = "tls")]
    fn load(&self) -> Result<TlsCertificates, Failure> {
        let read = |path: &PathBuf| {
            std::fs::read(path).map_err(|error| {
                let text = format!("`{}` cannot be read: {error}", path.display());
                Failure::new(FailureKind::Configuration, text)
            })
        };
        let client_tls = match (&self.certificate_file, &self.key_file) {
            (Some(certificate), Some(key)) => Some(ClientTlsConfig {
                client_cert: read(certificate)?,
                client_key: read(key)?,
            }),
            _ => None,
        };
        Ok(TlsCertificates {
            client_tls,
            root_cert: self.ca_file.as_ref().map(read).transpose()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn read(config: &Config) -> (Settings, Vec<String>) {
        let mut faults = Faults::new();
        let settings = Settings::read(&config.section("brokers.main"), &mut faults);
        let faults = faults
            .iter()
            .map(|fault| format!("{} {}", fault.key(), fault.message()))
            .collect();
        (settings, faults)
    }

    #[test]
    fn nothing_written_means_the_server_on_this_machine() {
        let (settings, faults) = read(&Config::new());
        assert_eq!(faults, [""; 0]);
        let target = settings.target().unwrap();
        assert_eq!(target.place.host, "localhost:6379");
        assert_eq!(
            (target.place.user.as_str(), target.place.database),
            ("default", 0)
        );
    }

    #[test]
    fn single_values_override_the_url() {
        let config = Config::new()
            .with("brokers.main.url", "redis://a:b@cache:6380/1")
            .with("brokers.main.username", "app")
            .with("brokers.main.password", "p@ss/w")
            .with("brokers.main.database", 4);
        let (settings, faults) = read(&config);
        assert_eq!(faults, [""; 0]);
        let target = settings.target().unwrap();
        let redis = target.info.redis_settings();
        assert_eq!(target.place.host, "cache:6380");
        assert_eq!(
            (redis.username(), redis.password(), redis.db()),
            (Some("app"), Some("p@ss/w"), 4)
        );
    }

    #[test]
    fn mistakes_are_told_without_the_password() {
        let urls = [
            "http://app:hunter2@cache",
            "redis://app:hunter2@cache:port",
            "redis://app:hunter2@cache/first",
            "redis://app:hunter2@cache#insecure",
        ];
        for url in urls {
            let (_, faults) = read(&Config::new().with("brokers.main.url", url));
            assert_eq!(faults.len(), 1, "{url}: {faults:?}");
            assert!(faults[0].starts_with("brokers.main.url"), "{faults:?}");
            assert!(!faults[0].contains("hunter2"), "{faults:?}");
        }
        let config = Config::new()
            .with("brokers.main.database", -1)
            .with("brokers.main.tls.certificate_file", "client.pem");
        let (_, faults) = read(&config);
        assert_eq!(faults.len(), 2, "{faults:?}");
    }

    #[cfg(not(feature = "tls"))]
    #[test]
    fn tls_without_its_feature_says_which_one_to_add() {
        let (_, faults) = read(&Config::new().with("brokers.main.url", "rediss://cache"));
        assert!(faults[0].contains("add the feature `tls`"), "{faults:?}");
    }
}
