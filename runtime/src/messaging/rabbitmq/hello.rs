//! Which server it is. The client crate keeps that to itself, so a connection of its own asks for it:
//! a server introduces itself before anybody has logged in.

use std::io;

use futures_util::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use lapin::types::parsing::parse_field_table;
use lapin::types::{AMQPValue, FieldTable};

/// The first whose quorum queues move expired and rejected messages without losing any.
const NEEDED: (u32, u32) = (3, 10);
const PROTOCOL_HEADER: &[u8; 8] = b"AMQP\x00\x00\x09\x01";
const FRAME_METHOD: u8 = 1;
/// Class 10, method 10.
const CONNECTION_START: [u8; 4] = [0, 10, 0, 10];
/// Kind, channel and size of a frame.
const FRAME_HEAD: usize = 7;
const FRAME_END: usize = 1;
/// Protocol version of the server, before its properties.
const VERSION_BYTES: usize = 2;
/// Servers send less than one.
const FRAME_BYTES_MAX: usize = 64 * 1024;

/// Who a server says it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Server {
    product: String,
    version: String,
}

impl Server {
    /// Asks over a connection that nothing was sent on; `None` if the answer says nothing of use.
    pub(super) async fn ask(
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    ) -> io::Result<Option<Self>> {
        stream.write_all(PROTOCOL_HEADER).await?;
        stream.flush().await?;
        let mut head = [0; FRAME_HEAD];
        stream.read_exact(&mut head).await?;
        let [kind, _, _, a, b, c, d] = head;
        let size = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        if kind != FRAME_METHOD || size > FRAME_BYTES_MAX {
            return Ok(None);
        }
        // With the byte that ends the frame: what is left unread makes of the goodbye a reset.
        let mut payload = vec![0; size + FRAME_END];
        stream.read_exact(&mut payload).await?;
        Ok(Self::read(&payload))
    }

    /// Reads the payload of `Connection.Start`.
    fn read(payload: &[u8]) -> Option<Self> {
        let rest = payload.strip_prefix(&CONNECTION_START)?;
        let (_, properties) = parse_field_table(rest.get(VERSION_BYTES..)?).ok()?;
        Some(Self {
            product: text(&properties, "product")?,
            version: text(&properties, "version")?,
        })
    }

    /// What is missing, if it is a RabbitMQ that is too old. Others that speak AMQP count their
    /// versions their own way.
    pub(super) fn too_old(&self) -> Option<String> {
        let mut numbers = self.version.split(['.', '-', '+']).map(str::parse);
        let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
            return None;
        };
        if self.product != "RabbitMQ" || (major, minor) >= NEEDED {
            return None;
        }
        let (major, minor) = NEEDED;
        Some(format!(
            "is {self}, and Interline needs RabbitMQ {major}.{minor} or newer: the quorum queues of \
             older ones can lose retries and dead letters on their way"
        ))
    }
}

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.product, self.version)
    }
}

fn text(table: &FieldTable, name: &str) -> Option<String> {
    match table.inner().get(name)? {
        AMQPValue::LongString(text) => Some(text.to_string()),
        AMQPValue::ShortString(text) => Some(text.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(product: &str, version: &str) -> Server {
        Server {
            product: product.to_owned(),
            version: version.to_owned(),
        }
    }

    #[test]
    fn versions_are_compared_by_their_numbers() {
        for fine in [
            "3.10.0",
            "3.10.8",
            "3.13.7-rc.1",
            "4.0",
            "4.1.2+1",
            "10.0.0",
            "unknown",
        ] {
            assert_eq!(server("RabbitMQ", fine).too_old(), None, "{fine}");
        }
        for old in ["3.9.13", "3.8.0", "2.99"] {
            let told = server("RabbitMQ", old).too_old().unwrap();
            let start = format!("is RabbitMQ {old}, and Interline needs RabbitMQ 3.10 or newer");
            assert!(told.starts_with(&start), "{told}");
        }
        assert_eq!(server("LavinMQ", "2.1.0").too_old(), None);
    }

    #[test]
    fn what_is_no_introduction_is_nobody() {
        assert_eq!(Server::read(b""), None);
        assert_eq!(Server::read(&[0, 10, 0, 10, 0]), None);
        assert_eq!(Server::read(&[0, 10, 0, 11, 0, 9, 0, 0, 0, 0]), None);
        assert_eq!(Server::read(&[0, 10, 0, 10, 0, 9, 0, 0, 0, 0]), None);
    }
}
