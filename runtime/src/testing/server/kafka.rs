//! Kafka for tests.

use std::env;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::local::LocalServer;
use super::rabbitmq::TlsFiles;
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
    tls: Option<TlsFiles>,
}

/// Kafka servers that are one cluster, each of them broker and controller; see
/// [`KafkaNode::start_cluster`].
#[derive(Debug)]
#[non_exhaustive]
pub struct KafkaCluster {
    servers: Vec<ServerFixture>,
    url: String,
}

impl KafkaCluster {
    /// The address of all of them: `kafka://host:port,host:port,host:port`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Each by itself, to be killed, paused and restarted: the one with the id `n` is number `n - 1`. One
    /// alone with a cluster that is not ours.
    pub fn servers(&self) -> &[ServerFixture] {
        &self.servers
    }

    /// The end of what each of them logged.
    pub fn logs(&self) -> String {
        let logs = self.servers.iter().map(ServerFixture::logs);
        logs.collect::<Vec<_>>().join("\n")
    }
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
    tls: u16,
    tls_password: u16,
    doors: Vec<KafkaDoor>,
}

/// A node of a cluster, of which it may be the only one.
struct Place<'a> {
    /// From 1.
    id: usize,
    ports: &'a Ports,
    /// Of all nodes, in the order of their ids.
    controllers: &'a [u16],
    data: &'a Path,
    /// The certificate with its key, in one file.
    pair: &'a Path,
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

    /// Adds a TLS listener, whose address is [`ServerFixture::tls_url`], and with
    /// [`user`](Self::user) one that wants name and password too; the address of that one is
    /// [`ServerFixture::tls_password_url`].
    pub fn tls(mut self, files: TlsFiles) -> Self {
        self.tls = Some(files);
        self
    }

    /// Starts so many of them (at most 5) as one cluster, in which a topic has as many replicas as there
    /// are servers unless it says otherwise, and waits until all are ready, for at most four minutes.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub async fn start_cluster(self, count: usize) -> Result<KafkaCluster, ServerError> {
        if let Some(url) = external_url() {
            let server = external(url)?;
            server.wait_ready(Duration::from_secs(20)).await?;
            return Ok(KafkaCluster {
                url: server.url.clone(),
                servers: vec![server],
            });
        }
        let libraries = libraries()?;
        let mut attempts = 3;
        loop {
            let servers = self.launch(&libraries, count.clamp(1, 5))?;
            attempts -= 1;
            match all_ready(&servers).await {
                Ok(()) => {
                    let urls = servers.iter();
                    let urls = urls.map(|server| server.url.trim_start_matches("kafka://"));
                    return Ok(KafkaCluster {
                        url: format!("kafka://{}", urls.collect::<Vec<_>>().join(",")),
                        servers,
                    });
                }
                // Somebody took one of the ports after they were found free.
                Err(ServerError::Exited { log, .. })
                    if attempts > 0 && log.contains("already in use") => {}
                Err(error) => return Err(error),
            }
        }
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
        let mut cluster = self.start_cluster(1).await?;
        Ok(cluster.servers.remove(0))
    }

    fn launch(&self, libraries: &Path, count: usize) -> Result<Vec<ServerFixture>, ServerError> {
        let all: Result<Vec<Ports>, ServerError> = (0..count).map(|_| self.ports()).collect();
        let all = all?;
        let controllers: Vec<u16> = all.iter().map(|ports| ports.controller).collect();
        let nodes = (1..).zip(all);
        nodes
            .map(|(id, ports)| self.launch_one(libraries, id, ports, &controllers))
            .collect()
    }

    fn launch_one(
        &self,
        libraries: &Path,
        id: usize,
        ports: Ports,
        controllers: &[u16],
    ) -> Result<ServerFixture, ServerError> {
        let workplace = Workplace::create(KIND)?;
        let log_directory = workplace.directory("log")?;
        let data = workplace.path().join("data");
        let mut pair = PathBuf::new();
        if let Some(files) = &self.tls {
            let read = |path: &Path| {
                let read = std::fs::read_to_string(path);
                read.map_err(ServerError::io(format!("reading {}", path.display())))
            };
            let both = format!("{}\n{}", read(&files.key)?, read(&files.certificate)?);
            pair = workplace.write("pair.pem", &both)?;
        }
        let place = Place {
            id,
            ports: &ports,
            controllers,
            data: &data,
            pair: &pair,
        };
        let config = workplace.write("server.properties", &self.config(&place))?;
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
            tls_url: self
                .tls
                .as_ref()
                .map(|_| format!("kafkas://localhost:{}", ports.tls)),
            password_url: self
                .user
                .as_ref()
                .map(|_| format!("kafka://127.0.0.1:{}", ports.password)),
            tls_password_url: (self.tls.is_some() && self.user.is_some())
                .then(|| format!("kafkas://localhost:{}", ports.tls_password)),
            doors: ports.doors,
            probes: vec![Probe::Kafka(format!("127.0.0.1:{}", ports.client))],
            local: Some(local),
        })
    }

    fn ports(&self) -> Result<Ports, ServerError> {
        // Asked for at once: of two lists one may name a port of the other.
        let all: [u16; 5 + 2 * DOORS_MAX] = free_ports()?;
        let [client, controller, password, tls, tls_password, pairs @ ..] = all;
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let doors = pairs.chunks(2).take(self.doors).map(|pair| KafkaDoor {
            advertised: at(pair[0]),
            listener: at(pair[1]),
        });
        Ok(Ports {
            client,
            controller,
            password,
            tls,
            tls_password,
            doors: doors.collect(),
        })
    }

    fn config(&self, place: &Place<'_>) -> String {
        let Place {
            id,
            ports,
            controllers,
            data,
            pair,
        } = *place;
        let (client, controller) = (ports.client, ports.controller);
        let voters = (1..).zip(controllers);
        let voters = voters.map(|(id, port): (usize, _)| format!("{id}@127.0.0.1:{port}"));
        let voters = voters.collect::<Vec<_>>().join(",");
        let replicas = controllers.len();
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
        let mut further = Vec::new();
        if self.user.is_some() {
            further.push(("PASSWORD", "127.0.0.1", ports.password, "SASL_PLAINTEXT"));
        }
        if self.tls.is_some() {
            further.push(("TLS", "localhost", ports.tls, "SSL"));
        }
        if self.tls.is_some() && self.user.is_some() {
            further.push(("BOTH", "localhost", ports.tls_password, "SASL_SSL"));
        }
        let mut own = String::new();
        for (name, host, port, protocol) in further {
            let _ = write!(listeners, ",{name}://127.0.0.1:{port}");
            let _ = write!(advertised, ",{name}://{host}:{port}");
            let _ = write!(protocols, ",{name}:{protocol}");
            let of = format!("listener.name.{}", name.to_ascii_lowercase());
            if let Some((name, password)) = self.user.as_ref().filter(|_| name != "TLS") {
                let module = "org.apache.kafka.common.security";
                let _ = write!(
                    own,
                    "{of}.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512\n\
                     {of}.plain.sasl.jaas.config={module}.plain.PlainLoginModule required user_{name}=\"{password}\";\n\
                     {of}.scram-sha-256.sasl.jaas.config={module}.scram.ScramLoginModule required;\n\
                     {of}.scram-sha-512.sasl.jaas.config={module}.scram.ScramLoginModule required;\n"
                );
            }
            if let Some(files) = self.tls.as_ref().filter(|_| name != "PASSWORD") {
                let asked = if files.require_client_certificate && name == "TLS" {
                    "required"
                } else {
                    "none"
                };
                let _ = write!(
                    own,
                    "{of}.ssl.keystore.type=PEM\n\
                     {of}.ssl.keystore.location={}\n\
                     {of}.ssl.truststore.type=PEM\n\
                     {of}.ssl.truststore.location={}\n\
                     {of}.ssl.client.auth={asked}\n",
                    pair.display(),
                    files.authorities.display()
                );
            }
        }
        let mut text = format!(
            "process.roles=broker,controller\n\
             node.id={id}\n\
             controller.quorum.voters={voters}\n\
             controller.listener.names=CONTROLLER\n\
             listeners={listeners}\n\
             advertised.listeners={advertised}\n\
             listener.security.protocol.map={protocols}\n\
             inter.broker.listener.name=CLIENT\n\
             log.dirs={}\n\
             default.replication.factor={replicas}\n\
             offsets.topic.replication.factor={replicas}\n\
             offsets.topic.num.partitions=5\n\
             transaction.state.log.replication.factor={replicas}\n\
             transaction.state.log.min.isr=1\n\
             transaction.state.log.num.partitions=2\n\
             share.coordinator.state.topic.replication.factor={replicas}\n\
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
        text.push_str(&own);
        for line in &self.config_lines {
            text.push_str(line);
            text.push('\n');
        }
        text
    }
}

async fn all_ready(servers: &[ServerFixture]) -> Result<(), ServerError> {
    let limit = Duration::from_secs(if servers.len() > 1 { 240 } else { 120 });
    for server in servers {
        server.wait_ready(limit).await?;
    }
    Ok(())
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
        tls_password_url: None,
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
            .tls(TlsFiles {
                authorities: "/ca.pem".into(),
                certificate: "/server.pem".into(),
                key: "/server.key".into(),
                require_client_certificate: true,
            })
            .config_line("min.insync.replicas=1");
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let ports = Ports {
            client: 1,
            controller: 2,
            password: 5,
            tls: 6,
            tls_password: 7,
            doors: vec![KafkaDoor {
                advertised: at(3),
                listener: at(4),
            }],
        };

        let text = node.config(&Place {
            id: 2,
            ports: &ports,
            controllers: &[9, 2],
            data: Path::new("/data"),
            pair: Path::new("/pair.pem"),
        });

        for line in [
            "listeners=CLIENT://127.0.0.1:1,CONTROLLER://127.0.0.1:2,DOOR0://127.0.0.1:4,PASSWORD://127.0.0.1:5,TLS://127.0.0.1:6,BOTH://127.0.0.1:7",
            "advertised.listeners=CLIENT://127.0.0.1:1,DOOR0://127.0.0.1:3,PASSWORD://127.0.0.1:5,TLS://localhost:6,BOTH://localhost:7",
            "node.id=2",
            "controller.quorum.voters=1@127.0.0.1:9,2@127.0.0.1:2",
            "default.replication.factor=2",
            "listener.name.tls.ssl.keystore.location=/pair.pem",
            "listener.name.tls.ssl.client.auth=required",
            "listener.name.both.ssl.client.auth=none",
            "listener.name.both.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
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
