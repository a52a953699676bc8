//! Ready means that the server speaks its protocol, not that a port is open.

use std::io;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::ServerError;
use super::local::LocalServer;

/// One thing that must answer; addresses are `host:port`.
#[derive(Debug, Clone)]
pub(super) enum Probe {
    /// An AMQP 0-9-1 protocol header is answered by `connection.start`.
    Amqp(String),
    /// A connection is accepted, where no more can be asked without certificates.
    Connect(String),
    /// A request for the versions that a Kafka server speaks is answered.
    Kafka(String),
    /// `GET path` is answered, or refused only for want of credentials.
    Http { address: String, path: &'static str },
    /// A `PING` of Redis is answered, or refused only for want of credentials.
    Redis(String),
}

impl Probe {
    async fn attempt(&self) -> Result<(), String> {
        let limit = Duration::from_secs(2);
        match tokio::time::timeout(limit, self.converse()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(format!("{}: {error}", self.name())),
            Err(_) => Err(format!(
                "{}: no answer within {} s",
                self.name(),
                limit.as_secs()
            )),
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Amqp(address) => format!("AMQP on {address}"),
            Self::Connect(address) => format!("port {address}"),
            Self::Kafka(address) => format!("Kafka on {address}"),
            Self::Http { address, path } => format!("http://{address}{path}"),
            Self::Redis(address) => format!("Redis on {address}"),
        }
    }

    async fn converse(&self) -> io::Result<()> {
        match self {
            Self::Connect(address) => TcpStream::connect(address).await.map(drop),
            Self::Amqp(address) => {
                let mut stream = TcpStream::connect(address).await?;
                stream.write_all(b"AMQP\0\0\x09\x01").await?;
                // A method frame (1) on channel 0, then its size, class 10 and method 10.
                let mut start = [0; 11];
                stream.read_exact(&mut start).await?;
                if start[..3] == [1, 0, 0] && start[7..] == [0, 10, 0, 10] {
                    Ok(())
                } else {
                    Err(io::Error::other(
                        "answered, but not with an AMQP 0-9-1 handshake",
                    ))
                }
            }
            Self::Kafka(address) => {
                let mut stream = TcpStream::connect(address).await?;
                // Length, ApiVersions (18) in version 0, a number to tell the answer by, no client id.
                let request = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 7, 0xff, 0xff];
                stream.write_all(&request).await?;
                let mut answer = [0; 10];
                stream.read_exact(&mut answer).await?;
                if answer[4..] == [0, 0, 0, 7, 0, 0] {
                    Ok(())
                } else {
                    Err(io::Error::other(
                        "answered, but not to a request for its versions",
                    ))
                }
            }
            Self::Redis(address) => {
                let mut stream = TcpStream::connect(address).await?;
                stream.write_all(b"PING\r\n").await?;
                let mut answer = [0; 7];
                stream.read_exact(&mut answer).await?;
                match &answer {
                    b"+PONG\r\n" | b"-NOAUTH" => Ok(()),
                    other => Err(io::Error::other(format!(
                        "answered with {}",
                        String::from_utf8_lossy(other).trim_end()
                    ))),
                }
            }
            Self::Http { address, path } => {
                let mut stream = TcpStream::connect(address).await?;
                let request =
                    format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
                stream.write_all(request.as_bytes()).await?;
                let mut status = [0; 12];
                stream.read_exact(&mut status).await?;
                match &status[9..] {
                    b"200" | b"401" => Ok(()),
                    other => Err(io::Error::other(format!(
                        "answered with status {}",
                        String::from_utf8_lossy(other)
                    ))),
                }
            }
        }
    }
}

pub(super) async fn wait(
    server: &'static str,
    probes: &[Probe],
    local: Option<&LocalServer>,
    limit: Duration,
) -> Result<(), ServerError> {
    let start = Instant::now();
    for probe in probes {
        while let Err(last) = probe.attempt().await {
            if let Some((local, status)) = local.and_then(|l| Some((l, l.exit_status()?))) {
                return Err(ServerError::Exited {
                    server,
                    status: status.to_string(),
                    log: local.logs(200),
                });
            }
            if start.elapsed() >= limit {
                return Err(ServerError::NotReady {
                    server,
                    waited: limit,
                    last,
                });
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(())
}
