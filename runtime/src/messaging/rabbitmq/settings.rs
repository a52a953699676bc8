//! `[brokers.NAME]` of kind `rabbitmq`.

use std::time::Duration;

use lapin::uri::{AMQPScheme, AMQPUri, SASLMechanism};

use crate::config::{Faults, Secret, Section};
use crate::messaging::{BrokerErrorKind, TopologyMode};

use super::errors::Place;
use super::hosts;
use super::management::{Address, Management};
#[cfg(feature = "tls")]
use super::tls::Connector;
use super::tls::Tls;

const EXCHANGE_DEFAULT: &str = "interline";
const URL_DEFAULT: &str = "amqp://localhost";
/// The server's own default.
const CONSUMER_TIMEOUT_DEFAULT: Duration = Duration::from_secs(1_800);
/// Longer than a connection needs to come back after a restart of the server, and not so long that what
/// crashed instances leave behind piles up.
const EXPIRES_DEFAULT: Duration = Duration::from_secs(600);
const EXPIRES_MIN: Duration = Duration::from_secs(1);
const EXPIRES_MAX: Duration = Duration::from_secs(7 * 86_400);
const SECONDS_10: Duration = Duration::from_secs(10);

/// How the broker is reached, and what is shared by everything on it.
///
/// | key | default | |
/// |---|---|---|
/// | `url` | `amqp://localhost` | a text, `{ file = ".." }` or `{ env = ".." }`, read again at each reconnect; the nodes of a cluster with commas between them, `amqp://user:password@one:5672,two:5672/vhost` |
/// | `username`, `password` | those of the url | secrets may come from a file or a variable |
/// | `vhost` | that of the url | |
/// | `management_url` | | `http://host:15672`, for the comparison of a topology alone: with it the bindings are seen, and what is no longer declared; the user is that of `url` unless it names one |
/// | `exchange` | `interline` | the topic exchange that messages are published to |
/// | `topology` | `apply` | what is done about that exchange |
/// | `heartbeat` | `10s` | 1 s to 10 min |
/// | `connect_timeout` | `10s` | |
/// | `consumer_timeout` | `30m` | the server's setting of this name, where that is another: how long a message may be handled |
/// | `instance_queue_expires` | `10m` | how long the queue of a subscriber with `group = each_instance` outlives its connection; 1 s to 7 d |
/// | `connection_pool_size` | 2 | channels that publish |
/// | `on_terminal` | `fail` | wrong credentials and the like at start: give up, or `retry` |
/// | `tls.ca_file` | the system's | the authorities that are trusted, and no others; PEM, read again at each reconnect, like the next two |
/// | `tls.certificate_file`, `tls.key_file` | | PEM, for a client certificate |
/// | `tls.external` | `false` | the client certificate is the identity (EXTERNAL) |
#[derive(Clone, Debug)]
pub(super) struct Settings {
    url: Secret,
    username: Option<String>,
    password: Option<Secret>,
    vhost: Option<String>,
    management_url: Option<Secret>,
    pub(super) exchange: String,
    pub(super) topology: TopologyMode,
    heartbeat: Duration,
    pub(super) connect_timeout: Duration,
    pub(super) consumer_timeout: Duration,
    pub(super) instance_queue_expires: Duration,
    pub(super) pool_size: usize,
    pub(super) retry_terminal: bool,
    tls: Tls,
}

/// Everything that one attempt to connect needs, read anew for it.
pub(super) struct Target {
    pub(super) uri: AMQPUri,
    /// What makes it TLS.
    #[cfg(feature = "tls")]
    pub(super) tls: Option<Connector>,
    pub(super) place: Place,
}

impl Settings {
    /// Reads the section; what is wrong goes to `faults`.
    pub(super) fn read(section: &Section<'_>, faults: &mut Faults) -> Self {
        let url = section.secret("url", faults);
        let url_key = format!("{}.url", section.path());
        let topologies = ["apply", "verify", "off"];
        let topology = match section.choice("topology", &topologies, faults) {
            Some("verify") => TopologyMode::Verify,
            Some("off") => TopologyMode::Off,
            _ => TopologyMode::Apply,
        };
        let seconds = Duration::from_secs(1)..=Duration::from_secs(600);
        let settings = Self {
            url: url.unwrap_or_else(|| Secret::literal(&url_key, URL_DEFAULT)),
            username: section.string("username", faults),
            password: section.secret("password", faults),
            vhost: section.string("vhost", faults),
            management_url: section.secret("management_url", faults),
            exchange: section
                .string("exchange", faults)
                .unwrap_or_else(|| EXCHANGE_DEFAULT.to_owned()),
            topology,
            heartbeat: section
                .duration("heartbeat", seconds, faults)
                .unwrap_or(SECONDS_10),
            connect_timeout: section
                .nonzero_duration("connect_timeout", faults)
                .unwrap_or(SECONDS_10),
            consumer_timeout: section
                .nonzero_duration("consumer_timeout", faults)
                .unwrap_or(CONSUMER_TIMEOUT_DEFAULT),
            instance_queue_expires: section
                .duration("instance_queue_expires", EXPIRES_MIN..=EXPIRES_MAX, faults)
                .unwrap_or(EXPIRES_DEFAULT),
            pool_size: section
                .integer::<u16>("connection_pool_size", 1..=64, faults)
                .map_or(2, usize::from),
            retry_terminal: section.choice("on_terminal", &["fail", "retry"], faults)
                == Some("retry"),
            tls: Tls::read(&section.section("tls", faults), faults),
        };
        settings.check(section, faults);
        settings
    }

    fn check(&self, section: &Section<'_>, faults: &mut Faults) {
        if self.exchange.len() > 255 {
            faults.push(section.fault("exchange", "must have at most 255 bytes"));
        }
        // A secret in a file or a variable may appear only later; what is written out is checked now.
        if let Ok(Err((_, message))) = self.url.read().map(|url| self.parse_all(url.expose())) {
            let fault = section.fault("url", message);
            faults
                .push(fault.with_help("write for example `amqp://user:password@host:5672/vhost`"));
        }
        let management = self.management_url.as_ref();
        let management = management
            .and_then(|url| url.read().ok())
            .map(|url| address(url.expose()));
        let has_tls = matches!(&management, Some(Ok(address)) if address.tls);
        if let Some(Err(message)) = management {
            let fault = section.fault("management_url", message);
            faults.push(fault.with_help("write for example `http://host:15672`"));
        }
        if let (Ok(url), Some(key)) = (self.url.read(), self.tls.asked())
            && url.expose().starts_with("amqp:")
            && !has_tls
        {
            let tls = section.section("tls", faults);
            let fault = tls.fault(key, "has no effect: the url asks for no TLS");
            faults.push(fault.with_help("begin the url with `amqps://`"));
        }
    }

    /// The virtual host, as far as it can be told.
    pub(super) fn vhost(&self) -> String {
        let first = self.targets().ok().and_then(|all| all.into_iter().next());
        first.map_or_else(|| "/".to_owned(), |target| target.place.vhost)
    }

    /// What the next attempt to connect uses: one for each server, any of which will do.
    pub(super) fn targets(&self) -> Result<Vec<Target>, (BrokerErrorKind, String)> {
        let unreadable =
            |error: &dyn std::fmt::Display| (BrokerErrorKind::Configuration, error.to_string());
        let url = self.url.read().map_err(|error| unreadable(&error))?;
        let mut all = self.parse_all(url.expose())?;
        if let Some(password) = &self.password {
            let password = password.read().map_err(|error| unreadable(&error))?;
            for (uri, _) in &mut all {
                password
                    .expose()
                    .clone_into(&mut uri.authority.userinfo.password);
            }
        }
        #[cfg(feature = "tls")]
        let tls = {
            let asked = all.iter().any(|(_, place)| place.tls);
            asked.then(|| self.tls.connector()).transpose()?
        };
        let targets = all.into_iter().map(|(uri, place)| Target {
            uri,
            #[cfg(feature = "tls")]
            tls: tls.clone(),
            place,
        });
        Ok(targets.collect())
    }

    /// Where the server can be asked for everything that it has; `None` if that is not said.
    pub(super) fn management(&self) -> Option<Result<Management, String>> {
        let url = self.management_url.as_ref()?;
        Some(
            url.read()
                .map_err(|error| error.to_string())
                .and_then(|url| {
                    let address =
                        address(url.expose()).map_err(|why| format!("`management_url` {why}"))?;
                    let first = self.targets().map_err(|(_, why)| why)?.into_iter().next();
                    let broker = first.ok_or_else(|| "`url` names no server".to_owned())?;
                    #[cfg(feature = "tls")]
                    let tls = {
                        let connector = address.tls.then(|| self.tls.connector());
                        connector.transpose().map_err(|(_, why)| why)?
                    };
                    Ok(Management::new(
                        address,
                        &broker.uri,
                        #[cfg(feature = "tls")]
                        tls,
                    ))
                }),
        )
    }

    fn parse_all(&self, url: &str) -> Result<Vec<(AMQPUri, Place)>, (BrokerErrorKind, String)> {
        let wrong = |message| (BrokerErrorKind::Configuration, message);
        let urls = hosts::each(url).map_err(wrong)?;
        urls.iter().map(|url| self.parse(url)).collect()
    }

    fn parse(&self, url: &str) -> Result<(AMQPUri, Place), (BrokerErrorKind, String)> {
        let wrong = |message: String| (BrokerErrorKind::Configuration, message);
        let scheme = url.split_once("://").map(|(scheme, _)| scheme);
        if !matches!(scheme, Some("amqp" | "amqps")) {
            return Err(wrong("must begin with `amqp://` or `amqps://`".to_owned()));
        }
        // The parser's own error repeats the url with its password.
        let mut uri: AMQPUri = url
            .parse()
            .map_err(|_| wrong("is not a valid AMQP url".to_owned()))?;
        if let Some(address) = ipv6(url) {
            address.clone_into(&mut uri.authority.host);
        }
        // With nothing but a slash people mean the default virtual host, not the one without a name.
        if uri.vhost.is_empty() {
            "/".clone_into(&mut uri.vhost);
        }
        if let Some(vhost) = &self.vhost {
            uri.vhost.clone_from(vhost);
        }
        if let Some(username) = &self.username {
            uri.authority.userinfo.username.clone_from(username);
        }
        let tls = uri.scheme == AMQPScheme::AMQPS;
        left_out(tls, cfg!(feature = "tls")).map_err(wrong)?;
        if uri.query.heartbeat.is_none() {
            let seconds = self.heartbeat.as_secs().clamp(1, 600);
            uri.query.heartbeat = u16::try_from(seconds).ok();
        }
        if self.tls.external {
            uri.query.auth_mechanism = Some(SASLMechanism::External);
        }
        let user = if self.tls.external {
            "that the client certificate names".to_owned()
        } else {
            format!("`{}`", uri.authority.userinfo.username)
        };
        let place = Place {
            host: format!("{}:{}", uri.authority.host, uri.authority.port),
            vhost: uri.vhost.clone(),
            user,
            tls,
            #[cfg(feature = "tls")]
            certificate: self.tls.has_certificate(),
        };
        Ok((uri, place))
    }
}

/// The address of the management API; what is wrong with it.
fn address(url: &str) -> Result<Address, String> {
    let address = Address::parse(url)?;
    left_out(address.tls, cfg!(feature = "tls"))?;
    Ok(address)
}

/// Whether the url asks for what this build left out.
fn left_out(tls: bool, built: bool) -> Result<(), String> {
    if tls && !built {
        return Err(
            "asks for TLS, which this build leaves out; add the feature `tls` of \
             interline"
                .to_owned(),
        );
    }
    Ok(())
}

/// The IPv6 address of a url, which the parser takes for no host at all.
fn ipv6(url: &str) -> Option<&str> {
    let authority = url.split_once("://")?.1.split('/').next()?;
    let host = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    Some(host.strip_prefix('[')?.split_once(']')?.0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::clock::Rng;
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

    fn target(settings: &Settings) -> Target {
        let targets = settings.targets().map_err(|(_, text)| text).unwrap();
        targets.into_iter().next().unwrap()
    }

    #[test]
    fn nothing_written_means_the_server_on_this_machine() {
        let (settings, faults) = read(&Config::new());
        assert_eq!(faults, [""; 0]);
        let target = target(&settings);
        assert_eq!(target.place.host, "localhost:5672");
        assert_eq!(
            (target.place.vhost.as_str(), target.place.user.as_str()),
            ("/", "`guest`")
        );
        assert_eq!(target.uri.query.heartbeat, Some(10));
        assert_eq!(
            (settings.exchange.as_str(), settings.pool_size),
            ("interline", 2)
        );
    }

    #[test]
    fn single_values_override_the_url() {
        let config = Config::new()
            .with("brokers.main.url", "amqp://a:b@rabbit:5673/one?heartbeat=3")
            .with("brokers.main.username", "app")
            .with("brokers.main.password", "p@ss/w")
            .with("brokers.main.vhost", "two");
        let (settings, faults) = read(&config);
        assert_eq!(faults, [""; 0]);
        let target = target(&settings);
        assert_eq!(target.uri.authority.userinfo.username, "app");
        assert_eq!(target.uri.authority.userinfo.password, "p@ss/w");
        assert_eq!(
            (target.uri.vhost.as_str(), target.uri.query.heartbeat),
            ("two", Some(3))
        );
    }

    #[test]
    fn the_nodes_of_a_cluster_stand_in_one_url() {
        let config = Config::new()
            .with("brokers.main.url", "amqp://a:b@one,two:5673,[::1]:5674/v")
            .with("brokers.main.password", "p@ss/w");
        let (settings, faults) = read(&config);
        assert_eq!(faults, [""; 0]);
        assert_eq!(settings.vhost(), "v");
        let mut targets = settings.targets().map_err(|(_, text)| text).unwrap();
        let hosts = |targets: &[Target]| -> Vec<String> {
            let hosts = targets.iter().map(|target| target.place.host.clone());
            hosts.collect()
        };
        assert_eq!(hosts(&targets), ["one:5672", "two:5673", "::1:5674"]);
        let password = |target: &Target| target.uri.authority.userinfo.password == "p@ss/w";
        assert!(targets.iter().all(password));
        let rng = Rng::new();
        println!("INTERLINE_TEST_SEED={}", rng.seed());
        let mut firsts = BTreeSet::new();
        for _ in 0..100 {
            hosts::order(&mut targets, Some("two:5673"), &rng);
            assert_eq!(targets[2].place.host, "two:5673");
            firsts.insert(targets[0].place.host.clone());
        }
        assert_eq!(firsts.len(), 2, "they are shared");
        let (_, faults) = read(&Config::new().with("brokers.main.url", "amqp://one,two:x"));
        assert_eq!(faults, ["brokers.main.url is not a valid AMQP url"]);
        let (_, faults) = read(&Config::new().with("brokers.main.url", "amqp://one,/v"));
        let expected = "brokers.main.url has a comma with no server beside it";
        assert_eq!(faults, [expected]);
    }

    #[test]
    fn an_ipv6_address_is_a_host() {
        let config = Config::new().with("brokers.main.url", "amqp://a:b@[::1]:5673/v");
        let target = target(&read(&config).0);
        assert_eq!(target.uri.authority.host, "::1");
        assert_eq!(target.uri.authority.port, 5673);
    }

    #[test]
    fn mistakes_are_told_without_the_password() {
        for url in ["http://app:hunter2@rabbit", "amqp://app:hunter2@rab bit:x"] {
            let (_, faults) = read(&Config::new().with("brokers.main.url", url));
            assert_eq!(faults.len(), 1, "{faults:?}");
            assert!(faults[0].starts_with("brokers.main.url"), "{faults:?}");
            assert!(!faults[0].contains("hunter2"), "{faults:?}");
        }
        let config = Config::new().with("brokers.main.management_url", "amqp://app:hunter2@rabbit");
        let (_, faults) = read(&config);
        let expected = "brokers.main.management_url must begin with `http://` or `https://`";
        assert_eq!(faults, [expected]);
        let config = Config::new()
            .with("brokers.main.connection_pool_size", 0)
            .with("brokers.main.on_terminal", "explode")
            .with("brokers.main.tls.certificate_file", "client.pem");
        let (_, faults) = read(&config);
        assert_eq!(faults.len(), 4, "{faults:?}");
    }

    #[test]
    fn what_only_tls_can_honour_is_no_use_without_it() {
        let config = Config::new()
            .with("brokers.main.url", "amqp://rabbit")
            .with("brokers.main.tls.ca_file", "ca.pem");
        let (_, faults) = read(&config);
        let expected = "brokers.main.tls.ca_file has no effect: the url asks for no TLS";
        assert_eq!(faults, [expected]);
    }

    #[test]
    fn tls_without_its_feature_says_which_one_to_add() {
        let told = left_out(true, false).unwrap_err();
        assert!(
            told.ends_with("add the feature `tls` of interline"),
            "{told}"
        );
        assert_eq!(left_out(true, true), Ok(()));
        assert_eq!(left_out(false, false), Ok(()));
        // And in a build without it.
        let (_, faults) = read(&Config::new().with("brokers.main.url", "amqps://rabbit"));
        let expected = if cfg!(feature = "tls") {
            vec![]
        } else {
            vec![format!("brokers.main.url {told}")]
        };
        assert_eq!(faults, expected);
    }
}
