//! Kafka for tests.

use std::env;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::local::LocalServer;
use super::readiness::Probe;
use super::workplace::{Workplace, free_ports};
use super::{Launch, ServerError, ServerFixture};

const KIND: &str = "kafka";
const URL: &str = "INTERLINE_TEST_KAFKA_URL";
/// The version that `tests/servers/install kafka` puts into the cache.
const VERSION: &str = "4.0.0";
/// Most further listeners of a node.
const DOORS_MAX: usize = 16;

/// A Kafka server to be started for a test: one process that is broker and controller.
///
/// When `INTERLINE_TEST_KAFKA_URL` is set, the cluster it names (`kafka://host:port,host:port`) is
/// used instead, and everything said here about a private one has no effect.
///
/// # Examples
///
/// ```no_run
/// use interline::testing::KafkaNode;
///
/// # async fn example() -> Result<(), interline::testing::ServerError> {
/// let server = KafkaNode::new().config_line("min.insync.replicas=1").start().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
#[must_use = "nothing is started before `start`"]
pub struct KafkaNode {
    config_lines: Vec<String>,
    doors: usize,
    user: Option<(String, String)>,
}

/// A further listener of a Kafka node. A Kafka server tells its clients where to connect; this one
/// tells those that came through it to come to [`advertised`](Self::advertised) again, where a
/// [`FaultProxy`](crate::testing::FaultProxy) that leads to [`listener`](Self::listener) can stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct KafkaDoor {
    /// Where clients are told to connect; nobody listens there yet.
    pub advertised: SocketAddr,
    /// Where the server listens.
    pub listener: SocketAddr,
}

/// The ports of a node.
struct Ports {
    client: u16,
    controller: u16,
    password: u16,
    doors: Vec<KafkaDoor>,
}

impl KafkaNode {
    /// A node with the server's own defaults, but for what one node cannot have (more than one replica)
    /// and what would make tests wait.
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
        libraries().map(drop)
    }

    /// Adds a line to `server.properties`, such as `min.insync.replicas=1`.
    pub fn config_line(mut self, line: impl Into<String>) -> Self {
        self.config_lines.push(line.into());
        self
    }

    /// Adds further listeners, at most 16; see [`KafkaDoor`] and [`ServerFixture::doors`].
    pub fn doors(mut self, count: usize) -> Self {
        self.doors = count.min(DOORS_MAX);
        self
    }

    /// Adds a listener that wants this user's name and password, by SASL's PLAIN, SCRAM-SHA-256 or
    /// SCRAM-SHA-512; its address, without them, is [`ServerFixture::password_url`].
    pub fn user(mut self, name: impl Into<String>, password: impl Into<String>) -> Self {
        self.user = Some((name.into(), password.into()));
        self
    }

    /// Starts the node and waits until it is ready, for at most two minutes.
    ///
    /// # Errors
    ///
    /// [`ServerError::Missing`] when Kafka is not installed, [`ServerError::Exited`] when it does not
    /// start (a wrong configuration line, say), [`ServerError::NotReady`] when it does not answer in
    /// time.
    pub async fn start(self) -> Result<ServerFixture, ServerError> {
        if let Some(url) = external_url() {
            let server = external(url)?;
            server.wait_ready(Duration::from_secs(20)).await?;
            return Ok(server);
        }
        let libraries = libraries()?;
        let mut attempts = 3;
        loop {
            let server = self.launch(&libraries)?;
            attempts -= 1;
            match server.wait_ready(Duration::from_secs(120)).await {
                Ok(()) => return Ok(server),
                // Somebody took one of the ports after they were found free.
                Err(ServerError::Exited { log, .. })
                    if attempts > 0 && log.contains("already in use") => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn launch(&self, libraries: &Path) -> Result<ServerFixture, ServerError> {
        let ports = self.ports()?;
        let workplace = Workplace::create(KIND)?;
        let log_directory = workplace.directory("log")?;
        let data = workplace.path().join("data");
        let config = workplace.write("server.properties", &self.config(&ports, &data))?;
        // Formats its directory at the first start only, and then becomes the server, so that signals
        // reach the server itself.
        let script = r#"
            set -e
            java="java -Xms64m -Xmx384m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:-UsePerfData"
            if [ ! -e "$DATA/meta.properties" ]; then
                set -- format -t "$CLUSTER" -c "$CONFIG"
                if [ -n "$SCRAM" ]; then
                    set -- "$@" --add-scram "SCRAM-SHA-256=[$SCRAM]" --add-scram "SCRAM-SHA-512=[$SCRAM]"
                fi
                $java -cp "$LIBRARIES/*" kafka.tools.StorageTool "$@"
            fi
            exec $java -cp "$LIBRARIES/*" kafka.Kafka "$CONFIG"
        "#;
        let path = |path: &Path| path.display().to_string();
        let server = Launch {
            program: "sh".into(),
            arguments: vec!["-c".to_owned(), script.to_owned()],
            environment: vec![
                ("CLUSTER", "aW50ZXJsaW5lLXRlc3RzIQ".to_owned()),
                ("CONFIG", path(&config)),
                ("DATA", path(&data)),
                ("HOME", path(&workplace.directory("home")?)),
                ("LIBRARIES", path(libraries)),
                (
                    "SCRAM",
                    self.user
                        .as_ref()
                        .map(|(name, password)| format!("name={name},password={password}"))
                        .unwrap_or_default(),
                ),
            ],
        };
        let local = LocalServer::new(KIND, workplace, log_directory, vec![server])?;
        local.launch()?;
        Ok(ServerFixture {
            kind: KIND,
            url: format!("kafka://127.0.0.1:{}", ports.client),
            management_url: None,
            tls_url: None,
            password_url: self
                .user
                .as_ref()
                .map(|_| format!("kafka://127.0.0.1:{}", ports.password)),
            doors: ports.doors,
            probes: vec![Probe::Kafka(format!("127.0.0.1:{}", ports.client))],
            local: Some(local),
        })
    }

    fn ports(&self) -> Result<Ports, ServerError> {
        let [client, controller, password] = free_ports()?;
        let pairs: [u16; 2 * DOORS_MAX] = free_ports()?;
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let doors = pairs.chunks(2).take(self.doors).map(|pair| KafkaDoor {
            advertised: at(pair[0]),
            listener: at(pair[1]),
        });
        Ok(Ports {
            client,
            controller,
            password,
            doors: doors.collect(),
        })
    }

    fn config(&self, ports: &Ports, data: &Path) -> String {
        let (client, controller) = (ports.client, ports.controller);
        let mut listeners =
            format!("CLIENT://127.0.0.1:{client},CONTROLLER://127.0.0.1:{controller}");
        let mut advertised = format!("CLIENT://127.0.0.1:{client}");
        let mut protocols = "CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT".to_owned();
        for (number, door) in ports.doors.iter().enumerate() {
            // Writing to a text cannot fail.
            let _ = write!(listeners, ",DOOR{number}://{}", door.listener);
            let _ = write!(advertised, ",DOOR{number}://{}", door.advertised);
            let _ = write!(protocols, ",DOOR{number}:PLAINTEXT");
        }
        let mut users = String::new();
        if let Some((name, password)) = &self.user {
            let at = format!("PASSWORD://127.0.0.1:{}", ports.password);
            let _ = write!(listeners, ",{at}");
            let _ = write!(advertised, ",{at}");
            protocols.push_str(",PASSWORD:SASL_PLAINTEXT");
            let module = "org.apache.kafka.common.security";
            let _ = write!(
                users,
                "listener.name.password.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512\n\
                 listener.name.password.plain.sasl.jaas.config={module}.plain.PlainLoginModule required user_{name}=\"{password}\";\n\
                 listener.name.password.scram-sha-256.sasl.jaas.config={module}.scram.ScramLoginModule required;\n\
                 listener.name.password.scram-sha-512.sasl.jaas.config={module}.scram.ScramLoginModule required;\n"
            );
        }
        let mut text = format!(
            "process.roles=broker,controller\n\
             node.id=1\n\
             controller.quorum.voters=1@127.0.0.1:{controller}\n\
             controller.listener.names=CONTROLLER\n\
             listeners={listeners}\n\
             advertised.listeners={advertised}\n\
             listener.security.protocol.map={protocols}\n\
             inter.broker.listener.name=CLIENT\n\
             log.dirs={}\n\
             offsets.topic.replication.factor=1\n\
             offsets.topic.num.partitions=5\n\
             transaction.state.log.replication.factor=1\n\
             transaction.state.log.min.isr=1\n\
             transaction.state.log.num.partitions=2\n\
             share.coordinator.state.topic.replication.factor=1\n\
             share.coordinator.state.topic.min.isr=1\n\
             auto.create.topics.enable=false\n\
             group.initial.rebalance.delay.ms=0\n\
             group.min.session.timeout.ms=500\n\
             group.consumer.min.session.timeout.ms=500\n\
             group.consumer.min.heartbeat.interval.ms=100\n\
             message.max.bytes=20000000\n\
             num.network.threads=1\n\
             num.io.threads=2\n\
             background.threads=2\n\
             log.cleaner.dedupe.buffer.size=4194304\n\
             log.index.size.max.bytes=1048576\n",
            data.display()
        );
        text.push_str(&users);
        for line in &self.config_lines {
            text.push_str(line);
            text.push('\n');
        }
        text
    }
}

fn external_url() -> Option<String> {
    env::var(URL).ok().filter(|url| !url.is_empty())
}

fn external(url: String) -> Result<ServerFixture, ServerError> {
    let wrong = || ServerError::Address {
        variable: URL,
        expected: "kafka://host:port,host:port",
    };
    let servers = url.strip_prefix("kafka://").ok_or_else(wrong)?;
    let mut probes = Vec::new();
    for server in servers.trim_end_matches('/').split(',') {
        let (host, port) = server.rsplit_once(':').ok_or_else(wrong)?;
        if host.is_empty() || host.contains('@') || port.parse::<u16>().is_err() {
            return Err(wrong());
        }
        probes.push(Probe::Kafka(server.to_owned()));
    }
    Ok(ServerFixture {
        kind: KIND,
        url,
        management_url: None,
        tls_url: None,
        password_url: None,
        doors: Vec::new(),
        probes,
        local: None,
    })
}

/// Where the server's libraries are.
fn libraries() -> Result<PathBuf, ServerError> {
    let home = env::var_os("HOME").unwrap_or_default();
    let cache = match env::var_os("XDG_CACHE_HOME").filter(|cache| !cache.is_empty()) {
        Some(cache) => PathBuf::from(cache),
        None => Path::new(&home).join(".cache"),
    };
    let home = cache.join(format!("interline/servers/kafka-{VERSION}"));
    if home.join("complete").is_file() && has_java() {
        return Ok(home.join("lib"));
    }
    Err(ServerError::Missing {
        server: KIND,
        looked_for: format!("java and {}", home.display()),
        variable: URL,
    })
}

fn has_java() -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|directory| directory.join("java").is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_reaches_the_configuration() {
        let node = KafkaNode::new()
            .doors(1)
            .user("app", "secret")
            .config_line("min.insync.replicas=1");
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let ports = Ports {
            client: 1,
            controller: 2,
            password: 5,
            doors: vec![KafkaDoor {
                advertised: at(3),
                listener: at(4),
            }],
        };

        let text = node.config(&ports, Path::new("/data"));

        for line in [
            "listeners=CLIENT://127.0.0.1:1,CONTROLLER://127.0.0.1:2,DOOR0://127.0.0.1:4,PASSWORD://127.0.0.1:5",
            "advertised.listeners=CLIENT://127.0.0.1:1,DOOR0://127.0.0.1:3,PASSWORD://127.0.0.1:5",
            "log.dirs=/data",
            "min.insync.replicas=1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }

    #[test]
    fn an_external_cluster_is_not_ours() {
        let server = external("kafka://one:9092,two:9093".to_owned()).unwrap();
        assert_eq!(server.probes.len(), 2);
        assert!(!server.is_ours());
    }

    #[test]
    fn a_wrong_address_names_the_variable_and_the_form() {
        for url in [
            "localhost:9092",
            "kafka://broker",
            "kafka://me:secret@broker:9092",
        ] {
            let error = external(url.to_owned()).unwrap_err();
            assert_eq!(
                error.to_string(),
                "INTERLINE_TEST_KAFKA_URL is not an address of the form kafka://host:port,host:port"
            );
        }
    }
}
