//! RabbitMQ for tests.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::local::LocalServer;
use super::readiness::Probe;
use super::url::Address;
use super::workplace::{Workplace, free_ports};
use super::{Launch, ServerError, ServerFixture};

pub(super) const KIND: &str = "rabbitmq";
const URL: &str = "INTERLINE_TEST_RABBITMQ_URL";
const MANAGEMENT_URL: &str = "INTERLINE_TEST_RABBITMQ_MANAGEMENT_URL";
/// What nodes of one cluster know each other by. They listen on the loopback interface only.
const COOKIE: &str = "interline-tests";
/// Where Debian and RabbitMQ's own packages put the versions of the server.
const INSTALLED: &str = "/usr/lib/rabbitmq/lib";

/// A RabbitMQ server to be started for a test.
///
/// When `INTERLINE_TEST_RABBITMQ_URL` is set, the server it names is used instead, and everything
/// said here about a private one has no effect; the management API is then expected on port 15672
/// of the same host, or where `INTERLINE_TEST_RABBITMQ_MANAGEMENT_URL` says.
///
/// The node collects its statistics every second, where a server otherwise takes five; those of
/// quorum queues lag by five seconds all the same.
///
/// # Examples
///
/// ```no_run
/// use interline::testing::RabbitMqNode;
///
/// # async fn example() -> Result<(), interline::testing::ServerError> {
/// let server = RabbitMqNode::new().config_line("heartbeat = 5").start().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
#[must_use = "nothing is started before `start`"]
pub struct RabbitMqNode {
    config_lines: Vec<String>,
    plugins: Vec<String>,
    consumer_timeout: Option<Duration>,
    tls: Option<TlsFiles>,
}

/// What a TLS listener needs, each a path of a PEM file.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The authorities that clients' certificates are checked against.
    pub authorities: PathBuf,
    /// The server's certificate, with its chain.
    pub certificate: PathBuf,
    /// The key of the certificate.
    pub key: PathBuf,
    /// Whether a client without a certificate is turned away.
    pub require_client_certificate: bool,
}

impl RabbitMqNode {
    /// A node with the server's own defaults and the management API.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether a server can be had: an external one is named, or the program is installed.
    ///
    /// # Errors
    ///
    /// [`ServerError::Missing`], which says what to do about it.
    pub fn available() -> Result<(), ServerError> {
        if external_url().is_some() {
            return Ok(());
        }
        program().map(drop)
    }

    /// Adds a line to `rabbitmq.conf`, such as `heartbeat = 5`.
    pub fn config_line(mut self, line: impl Into<String>) -> Self {
        self.config_lines.push(line.into());
        self
    }

    /// Enables a plugin beside the management one, such as `rabbitmq_auth_mechanism_ssl`.
    pub fn plugin(mut self, name: impl Into<String>) -> Self {
        self.plugins.push(name.into());
        self
    }

    /// How long a delivery may stay unacknowledged before the server closes the channel. Checked
    /// every second, where a server otherwise checks once in a minute.
    pub fn consumer_timeout(mut self, timeout: Duration) -> Self {
        self.consumer_timeout = Some(timeout);
        self
    }

    /// Adds a TLS listener; its address is [`ServerFixture::tls_url`].
    pub fn tls(mut self, files: TlsFiles) -> Self {
        self.tls = Some(files);
        self
    }

    /// Starts the node and waits until it is ready, for at most two minutes.
    ///
    /// # Errors
    ///
    /// [`ServerError::Missing`] when RabbitMQ is not installed, [`ServerError::Exited`] when it
    /// does not start (a wrong configuration line, say), [`ServerError::NotReady`] when it does not
    /// answer in time.
    pub async fn start(self) -> Result<ServerFixture, ServerError> {
        let limit = Duration::from_secs(120);
        if let Some(url) = external_url() {
            let server = external(url)?;
            server.wait_ready(Duration::from_secs(20)).await?;
            return Ok(server);
        }
        let program = program()?;
        let mut attempts = 3;
        loop {
            let server = self.launch(&program, &Among::default())?;
            attempts -= 1;
            match server.wait_ready(limit).await {
                Ok(()) => return Ok(server),
                // Somebody took one of the ports after they were found free.
                Err(ServerError::Exited { log, .. }) if attempts > 0 && port_was_taken(&log) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Starts the node, which is not ready then.
    pub(super) fn launch(
        &self,
        program: &Path,
        among: &Among<'_>,
    ) -> Result<ServerFixture, ServerError> {
        let [amqp, management, tls, distribution, own_names] = free_ports()?;
        let workplace = Workplace::create(KIND)?;
        let log_directory = workplace.directory("log")?;
        let mut config = self.config(amqp, management, tls);
        config.push_str(&among.config(amqp));
        let config = workplace.write("rabbitmq.conf", &config)?;
        let plugins = workplace.write("enabled_plugins", &self.enabled_plugins())?;
        let path = |path: &Path| path.display().to_string();
        let environment = vec![
            ("ERL_CRASH_DUMP_SECONDS", "0".to_owned()),
            ("ERL_EPMD_ADDRESS", "127.0.0.1".to_owned()),
            (
                "ERL_EPMD_PORT",
                among.names.unwrap_or(own_names).to_string(),
            ),
            ("HOME", path(&workplace.directory("home")?)),
            ("RABBITMQ_CONFIG_FILE", path(&config)),
            ("RABBITMQ_DIST_PORT", distribution.to_string()),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", path(&plugins)),
            ("RABBITMQ_LOG_BASE", path(&log_directory)),
            ("RABBITMQ_MNESIA_BASE", path(&workplace.directory("data")?)),
            // The same name at every start: the data directory is called after it.
            ("RABBITMQ_NODENAME", node_name(amqp)),
            (
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                format!("{} -setcookie {COOKIE}", self.runtime_arguments(among)),
            ),
            // Replaces the starting shell by the server, so that signals reach the server itself.
            ("RUNNING_UNDER_SYSTEMD", "true".to_owned()),
        ];
        let mut launches = Vec::new();
        if among.names.is_none() {
            // The server would start one as a daemon, outside our process group, and leave it behind.
            launches.push(Launch {
                program: "epmd".into(),
                arguments: Vec::new(),
                environment: environment.clone(),
            });
        }
        launches.push(Launch {
            program: program.to_owned(),
            arguments: Vec::new(),
            environment,
        });
        let local = LocalServer::new(KIND, workplace, log_directory, launches)?;
        local.launch()?;
        Ok(ServerFixture {
            kind: KIND,
            url: format!("amqp://guest:guest@127.0.0.1:{amqp}/%2f"),
            management_url: Some(format!("http://guest:guest@127.0.0.1:{management}")),
            tls_url: self
                .tls
                .as_ref()
                .map(|_| format!("amqps://guest:guest@localhost:{tls}/%2f")),
            password_url: None,
            tls_password_url: None,
            doors: Vec::new(),
            probes: probes(
                format!("127.0.0.1:{amqp}"),
                format!("127.0.0.1:{management}"),
            ),
            local: Some(local),
        })
    }

    fn config(&self, amqp: u16, management: u16, tls: u16) -> String {
        let mut text = format!(
            "listeners.tcp.1 = 127.0.0.1:{amqp}\n\
             management.tcp.ip = 127.0.0.1\n\
             management.tcp.port = {management}\n\
             collect_statistics_interval = 1000\n"
        );
        if let Some(timeout) = self.consumer_timeout {
            let _ = writeln!(text, "consumer_timeout = {}", timeout.as_millis());
        }
        if let Some(files) = &self.tls {
            let _ = write!(
                text,
                "listeners.ssl.1 = 127.0.0.1:{tls}\n\
                 ssl_options.cacertfile = {}\n\
                 ssl_options.certfile = {}\n\
                 ssl_options.keyfile = {}\n\
                 ssl_options.verify = verify_peer\n\
                 ssl_options.fail_if_no_peer_cert = {}\n",
                files.authorities.display(),
                files.certificate.display(),
                files.key.display(),
                files.require_client_certificate,
            );
        }
        for line in &self.config_lines {
            text.push_str(line);
            text.push('\n');
        }
        text
    }

    fn enabled_plugins(&self) -> String {
        let mut names = vec!["rabbitmq_management"];
        names.extend(self.plugins.iter().map(String::as_str));
        format!("[{}].\n", names.join(","))
    }

    fn runtime_arguments(&self, among: &Among<'_>) -> String {
        // Schedulers that wait for work by spinning take the machine from the code under test.
        let mut arguments = "+sbwt none +sbwtdcpu none +sbwtdio none \
             -kernel inet_dist_use_interface {127,0,0,1}"
            .to_owned();
        if self.consumer_timeout.is_some() {
            arguments.push_str(" -rabbit channel_tick_interval 1000");
        }
        if among.names.is_some() {
            // What a queue could not dead-letter while another had no leader it tries again only after
            // three minutes otherwise.
            arguments.push_str(" -rabbit dead_letter_worker_publisher_confirm_timeout 5000");
        }
        arguments
    }
}

/// Where a node stands among others.
#[derive(Default)]
pub(super) struct Among<'a> {
    /// The port of the name server that all share; it has one of its own otherwise.
    pub(super) names: Option<u16>,
    /// The node that it joins at its first start.
    pub(super) joins: Option<&'a str>,
}

impl Among<'_> {
    fn config(&self, amqp: u16) -> String {
        let Some(first) = self.joins else {
            return String::new();
        };
        format!(
            "cluster_formation.peer_discovery_backend = classic_config\n\
             cluster_formation.classic_config.nodes.1 = {first}\n\
             cluster_formation.classic_config.nodes.2 = {}\n",
            node_name(amqp)
        )
    }
}

/// The name of the node that listens there.
pub(super) fn node_name(amqp: u16) -> String {
    format!("interline-{amqp}@localhost")
}

pub(super) fn port_was_taken(log: &str) -> bool {
    log.contains("eaddrinuse") || log.contains("already in use") || log.contains("in use by")
}

fn probes(amqp: String, management: String) -> Vec<Probe> {
    vec![
        Probe::Amqp(amqp),
        Probe::Http {
            address: management,
            path: "/api/overview",
        },
    ]
}

pub(super) fn external_url() -> Option<String> {
    env::var(URL).ok().filter(|url| !url.is_empty())
}

pub(super) fn external(url: String) -> Result<ServerFixture, ServerError> {
    let bad = |variable, expected| ServerError::Address { variable, expected };
    let wrong = || bad(URL, "amqp://user:password@host:port/vhost");
    let broker = Address::parse(&url).ok_or_else(wrong)?;
    let amqp = match broker.scheme {
        "amqp" => Probe::Amqp(format!("{}:{}", broker.host, broker.port.unwrap_or(5672))),
        "amqps" => Probe::Connect(format!("{}:{}", broker.host, broker.port.unwrap_or(5671))),
        _ => return Err(wrong()),
    };
    let userinfo = broker.userinfo.unwrap_or("guest:guest");
    let named = env::var(MANAGEMENT_URL).ok().filter(|url| !url.is_empty());
    let management_url =
        named.unwrap_or_else(|| format!("http://{userinfo}@{}:15672", broker.host));
    let management = Address::parse(&management_url)
        .filter(|address| address.scheme == "http")
        .ok_or_else(|| bad(MANAGEMENT_URL, "http://user:password@host:port"))?;
    let address = format!("{}:{}", management.host, management.port.unwrap_or(15672));
    let probes = vec![
        amqp,
        Probe::Http {
            address,
            path: "/api/overview",
        },
    ];
    Ok(ServerFixture {
        kind: KIND,
        management_url: Some(management_url),
        tls_url: (broker.scheme == "amqps").then(|| url.clone()),
        password_url: None,
        tls_password_url: None,
        doors: Vec::new(),
        url,
        probes,
        local: None,
    })
}

/// The program of the newest installed version. The wrapper in `/usr/sbin` will not do: it insists
/// on a user of its own.
pub(super) fn program() -> Result<PathBuf, ServerError> {
    newest_program(Path::new(INSTALLED)).ok_or_else(|| ServerError::Missing {
        server: KIND,
        looked_for: format!("{INSTALLED}/rabbitmq_server-*/sbin/rabbitmq-server"),
        variable: URL,
    })
}

fn newest_program(installed: &Path) -> Option<PathBuf> {
    let version = |path: &Path| -> Option<Vec<u32>> {
        let name = path
            .file_name()?
            .to_str()?
            .strip_prefix("rabbitmq_server-")?;
        Some(
            name.split('.')
                .map(|part| part.parse().unwrap_or(0))
                .collect(),
        )
    };
    fs::read_dir(installed)
        .ok()?
        .flatten()
        .filter_map(|entry| Some((version(&entry.path())?, entry.path())))
        .max()
        .map(|(_, path)| path.join("sbin/rabbitmq-server"))
        .filter(|program| program.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_is_taken() {
        let installed = tempfile::tempdir().unwrap();
        for version in ["3.9.13", "3.10.8", "3.2.0"] {
            let directory = installed
                .path()
                .join(format!("rabbitmq_server-{version}/sbin"));
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join("rabbitmq-server"), "").unwrap();
        }

        let found = newest_program(installed.path());

        let expected = installed
            .path()
            .join("rabbitmq_server-3.10.8/sbin/rabbitmq-server");
        assert_eq!(found, Some(expected));
    }

    #[test]
    fn nothing_installed_is_nothing_found() {
        let installed = tempfile::tempdir().unwrap();
        assert_eq!(newest_program(installed.path()), None);
        assert_eq!(newest_program(Path::new("/nonexistent")), None);
    }

    #[test]
    fn every_setting_reaches_the_configuration() {
        let node = RabbitMqNode::new()
            .config_line("heartbeat = 5")
            .plugin("rabbitmq_auth_mechanism_ssl")
            .consumer_timeout(Duration::from_secs(3))
            .tls(TlsFiles {
                authorities: "/ca.pem".into(),
                certificate: "/server.pem".into(),
                key: "/server.key".into(),
                require_client_certificate: true,
            });

        assert_eq!(
            node.config(1, 2, 3),
            "listeners.tcp.1 = 127.0.0.1:1\n\
             management.tcp.ip = 127.0.0.1\n\
             management.tcp.port = 2\n\
             collect_statistics_interval = 1000\n\
             consumer_timeout = 3000\n\
             listeners.ssl.1 = 127.0.0.1:3\n\
             ssl_options.cacertfile = /ca.pem\n\
             ssl_options.certfile = /server.pem\n\
             ssl_options.keyfile = /server.key\n\
             ssl_options.verify = verify_peer\n\
             ssl_options.fail_if_no_peer_cert = true\n\
             heartbeat = 5\n"
        );
        assert_eq!(
            node.enabled_plugins(),
            "[rabbitmq_management,rabbitmq_auth_mechanism_ssl].\n"
        );
        assert!(
            node.runtime_arguments(&Among::default())
                .ends_with("-rabbit channel_tick_interval 1000")
        );
    }

    #[test]
    fn an_external_server_is_not_ours_and_its_password_is_not_printed() {
        let server = external("amqp://me:secret@broker.example:1234/orders".to_owned()).unwrap();

        assert_eq!(
            server.management_url(),
            Some("http://me:secret@broker.example:15672")
        );
        assert!(!server.is_ours());
        assert!(!format!("{server:?}").contains("secret"));
        assert_eq!(
            server
                .ours("kill")
                .err()
                .map(|error| error.to_string())
                .as_deref(),
            Some(
                "cannot kill rabbitmq: it was named by an environment variable, not started by \
                 the fixture; unset the variable to test against a private server"
            )
        );
    }

    #[test]
    fn a_wrong_address_names_the_variable_and_the_form() {
        let error = external("http://broker".to_owned()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "INTERLINE_TEST_RABBITMQ_URL is not an address of the form \
             amqp://user:password@host:port/vhost"
        );
    }
}
