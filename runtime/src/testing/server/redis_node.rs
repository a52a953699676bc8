//! Redis for tests.

use std::env;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::local::LocalServer;
use super::rabbitmq::TlsFiles;
use super::readiness::Probe;
use super::url::Address;
use super::workplace::{Workplace, free_ports};
use super::{Launch, ServerError, ServerFixture};

const KIND: &str = "redis";
const URL: &str = "INTERLINE_TEST_REDIS_URL";
const PROGRAM: &str = "redis-server";
/// Databases of a private server: enough for each case of a test program to have one.
const DATABASES: u32 = 4_096;

/// A Redis server to be started for a test.
///
/// When `INTERLINE_TEST_REDIS_URL` is set, the server it names is used instead, and everything said
/// here about a private one has no effect.
///
/// A private server writes to an append-only file before it confirms, so that what was confirmed is
/// there after a kill; [`appendonly`](Self::appendonly) is how to do without.
///
/// # Examples
///
/// ```no_run
/// use interline::testing::RedisNode;
///
/// # async fn example() -> Result<(), interline::testing::ServerError> {
/// let server = RedisNode::new().config_line("maxmemory 64mb").start().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is started before `start`"]
pub struct RedisNode {
    config_lines: Vec<String>,
    appendonly: bool,
    tls: Option<TlsFiles>,
}

impl Default for RedisNode {
    fn default() -> Self {
        Self::new()
    }
}

impl RedisNode {
    /// A server that persists every write.
    pub fn new() -> Self {
        Self {
            config_lines: Vec::new(),
            appendonly: true,
            tls: None,
        }
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

    /// Adds a line to `redis.conf`, such as `maxmemory 64mb`.
    pub fn config_line(mut self, line: impl Into<String>) -> Self {
        self.config_lines.push(line.into());
        self
    }

    /// Whether writes are persisted at all.
    pub fn appendonly(mut self, on: bool) -> Self {
        self.appendonly = on;
        self
    }

    /// Adds a TLS listener; its address is [`ServerFixture::tls_url`].
    pub fn tls(mut self, files: TlsFiles) -> Self {
        self.tls = Some(files);
        self
    }

    /// Starts the server and waits until it is ready, for at most a minute.
    ///
    /// # Errors
    ///
    /// [`ServerError::Missing`] when Redis is not installed, [`ServerError::Exited`] when it does not
    /// start (a wrong configuration line, say), [`ServerError::NotReady`] when it does not answer in
    /// time.
    pub async fn start(self) -> Result<ServerFixture, ServerError> {
        if let Some(url) = external_url() {
            let server = external(url)?;
            server.wait_ready(Duration::from_secs(20)).await?;
            return Ok(server);
        }
        let program = program()?;
        let mut attempts = 3;
        loop {
            let server = self.launch(&program)?;
            attempts -= 1;
            match server.wait_ready(Duration::from_secs(60)).await {
                Ok(()) => return Ok(server),
                // Somebody took one of the ports after they were found free.
                Err(ServerError::Exited { log, .. }) if attempts > 0 && log.contains("in use") => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn launch(&self, program: &Path) -> Result<ServerFixture, ServerError> {
        let [port, tls] = free_ports()?;
        let workplace = Workplace::create(KIND)?;
        let log_directory = workplace.directory("log")?;
        let data = workplace.directory("data")?;
        let config = self.config(port, tls, &data, &log_directory);
        let config = workplace.write("redis.conf", &config)?;
        let server = Launch {
            program: program.to_owned(),
            arguments: vec![config.display().to_string()],
            environment: Vec::new(),
        };
        let local = LocalServer::new(KIND, workplace, log_directory, vec![server])?;
        local.launch()?;
        Ok(ServerFixture {
            kind: KIND,
            url: format!("redis://127.0.0.1:{port}"),
            management_url: None,
            doors: Vec::new(),
            password_url: None,
            tls_password_url: None,
            tls_url: self
                .tls
                .as_ref()
                .map(|_| format!("rediss://localhost:{tls}")),
            probes: vec![Probe::Redis(format!("127.0.0.1:{port}"))],
            local: Some(local),
        })
    }

    fn config(&self, port: u16, tls: u16, data: &Path, log: &Path) -> String {
        let mut text = format!(
            "bind 127.0.0.1\n\
             port {port}\n\
             dir {}\n\
             logfile {}\n\
             daemonize no\n\
             save \"\"\n\
             databases {DATABASES}\n",
            data.display(),
            log.join("redis.log").display()
        );
        if self.appendonly {
            text.push_str("appendonly yes\nappendfsync everysec\n");
        } else {
            text.push_str("appendonly no\n");
        }
        if let Some(files) = &self.tls {
            let _ = write!(
                text,
                "tls-port {tls}\n\
                 tls-ca-cert-file {}\n\
                 tls-cert-file {}\n\
                 tls-key-file {}\n\
                 tls-auth-clients {}\n",
                files.authorities.display(),
                files.certificate.display(),
                files.key.display(),
                if files.require_client_certificate {
                    "yes"
                } else {
                    "no"
                }
            );
        }
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
        expected: "redis://user:password@host:port",
    };
    let address = Address::parse(&url).ok_or_else(wrong)?;
    let place = format!("{}:{}", address.host, address.port.unwrap_or(6379));
    let probe = match address.scheme {
        "redis" => Probe::Redis(place),
        "rediss" => Probe::Connect(place),
        _ => return Err(wrong()),
    };
    Ok(ServerFixture {
        kind: KIND,
        management_url: None,
        doors: Vec::new(),
        password_url: None,
        tls_password_url: None,
        tls_url: (address.scheme == "rediss").then(|| url.clone()),
        url,
        probes: vec![probe],
        local: None,
    })
}

fn program() -> Result<PathBuf, ServerError> {
    found(env::var_os("PATH").as_deref()).ok_or_else(|| ServerError::Missing {
        server: KIND,
        looked_for: format!("{PROGRAM} in PATH"),
        variable: URL,
    })
}

fn found(path: Option<&OsStr>) -> Option<PathBuf> {
    env::split_paths(path?)
        .map(|directory| directory.join(PROGRAM))
        .find(|program| program.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_reaches_the_configuration() {
        let node = RedisNode::new()
            .config_line("maxmemory 64mb")
            .appendonly(false)
            .tls(TlsFiles {
                authorities: "/ca.pem".into(),
                certificate: "/server.pem".into(),
                key: "/server.key".into(),
                require_client_certificate: false,
            });

        assert_eq!(
            node.config(1, 2, Path::new("/data"), Path::new("/log")),
            "bind 127.0.0.1\n\
             port 1\n\
             dir /data\n\
             logfile /log/redis.log\n\
             daemonize no\n\
             save \"\"\n\
             databases 4096\n\
             appendonly no\n\
             tls-port 2\n\
             tls-ca-cert-file /ca.pem\n\
             tls-cert-file /server.pem\n\
             tls-key-file /server.key\n\
             tls-auth-clients no\n\
             maxmemory 64mb\n"
        );
    }

    #[test]
    fn the_program_is_looked_for_in_the_path() {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join(PROGRAM);
        assert_eq!(found(Some(directory.path().as_os_str())), None);
        std::fs::write(&program, "").unwrap();
        assert_eq!(found(Some(directory.path().as_os_str())), Some(program));
        assert_eq!(found(None), None);
    }

    #[test]
    fn a_wrong_address_names_the_variable_and_the_form() {
        let error = external("http://cache".to_owned()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "INTERLINE_TEST_REDIS_URL is not an address of the form redis://user:password@host:port"
        );
    }
}
