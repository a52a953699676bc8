//! As much of HTTP/1.1 as the management API needs: one request on a connection.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long one request may take.
const LIMIT: Duration = Duration::from_secs(30);
/// The largest answer that is read, in bytes.
const LARGEST: u64 = 64 * 1024 * 1024;

#[derive(Clone)]
pub(super) struct Endpoint {
    /// `host:port`.
    pub(super) address: String,
    pub(super) user: String,
    password: String,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

impl Endpoint {
    pub(super) fn parse(url: &str) -> Option<Self> {
        let authority = url.strip_prefix("http://")?.trim_end_matches('/');
        let (userinfo, address) = authority.rsplit_once('@')?;
        let (user, password) = userinfo.split_once(':')?;
        Some(Self {
            address: address.to_owned(),
            user: percent_decoded(user)?,
            password: percent_decoded(password)?,
        })
    }

    pub(super) async fn call(&self, method: &str, path: &[&str], body: &str) -> io::Result<Answer> {
        let path: String = path
            .iter()
            .map(|part| format!("/{}", percent_encoded(part)))
            .collect();
        let request = format!(
            "{method} /api{path} HTTP/1.1\r\n\
             host: {}\r\n\
             authorization: Basic {}\r\n\
             content-type: application/json\r\n\
             content-length: {}\r\n\
             connection: close\r\n\r\n{body}",
            self.address,
            base64(format!("{}:{}", self.user, self.password).as_bytes()),
            body.len(),
        );
        let converse = async {
            let mut stream = TcpStream::connect(&self.address).await?;
            stream.write_all(request.as_bytes()).await?;
            let mut answer = Vec::new();
            stream.take(LARGEST).read_to_end(&mut answer).await?;
            parse_answer(&answer).ok_or_else(|| io::Error::other("the answer is not whole HTTP"))
        };
        timeout(LIMIT, converse).await.map_err(|_| {
            io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no answer within {} s", LIMIT.as_secs()),
            )
        })?
    }
}

/// `None` unless the answer is complete.
fn parse_answer(answer: &[u8]) -> Option<Answer> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let (head, body) = (
        std::str::from_utf8(&answer[..end]).ok()?,
        &answer[end + 4..],
    );
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let header = |wanted: &str| {
        let mut fields = lines.clone().filter_map(|line| line.split_once(':'));
        fields
            .find(|(name, _)| name.eq_ignore_ascii_case(wanted))
            .map(|(_, value)| value.trim())
    };
    let body = if header("transfer-encoding").is_some_and(|value| value.contains("chunked")) {
        join_chunks(body)?
    } else if let Some(length) = header("content-length") {
        body.get(..length.parse().ok()?)?.to_vec()
    } else {
        body.to_vec()
    };
    Some(Answer { status, body })
}

fn join_chunks(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|window| window == b"\r\n")?;
        let size = std::str::from_utf8(&rest[..end])
            .ok()?
            .split(';')
            .next()?
            .trim();
        let size = usize::from_str_radix(size, 16).ok()?;
        rest = &rest[end + 2..];
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size..)?.strip_prefix(b"\r\n")?;
    }
}

fn percent_encoded(part: &str) -> String {
    part.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digits = [bytes.next()?, bytes.next()?];
            decoded.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
        } else {
            decoded.push(byte);
        }
    }
    String::from_utf8(decoded).ok()
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = group
            .iter()
            .chain([&0, &0])
            .take(3)
            .fold(0_usize, |bits, &byte| bits << 8 | usize::from(byte));
        for digit in 0..4 {
            if digit > group.len() {
                text.push('=');
            } else {
                text.push(char::from(ALPHABET[bits >> (18 - 6 * digit) & 63]));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Option<(u16, String)> {
        let answer = parse_answer(text.as_bytes())?;
        Some((answer.status, String::from_utf8(answer.body).unwrap()))
    }

    #[test]
    fn answers_of_every_framing_are_read() {
        assert_eq!(
            parsed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"),
            Some((200, "[]".to_owned()))
        );
        assert_eq!(
            parsed(
                "HTTP/1.1 201 Created\r\ntransfer-encoding: chunked\r\n\r\n\
                 3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n"
            ),
            Some((201, "abc0123456789".to_owned()))
        );
        assert_eq!(
            parsed("HTTP/1.1 204 No Content\r\n\r\n"),
            Some((204, String::new()))
        );
    }

    #[test]
    fn an_answer_that_is_cut_off_is_none() {
        assert_eq!(
            parsed("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n[]"),
            None
        );
        assert_eq!(
            parsed("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nab"),
            None
        );
        assert_eq!(parsed("HTTP/1.1 200 OK\r\n"), None);
    }

    #[test]
    fn base64_pads() {
        assert_eq!(base64(b""), "");
        assert_eq!(base64(b"f"), "Zg==");
        assert_eq!(base64(b"fo"), "Zm8=");
        assert_eq!(base64(b"foo"), "Zm9v");
        assert_eq!(base64(b"guest:guest"), "Z3Vlc3Q6Z3Vlc3Q=");
    }

    #[test]
    fn an_address_needs_credentials() {
        let endpoint = Endpoint::parse("http://me:p%40ss@host:15672").unwrap();
        assert_eq!(endpoint.address, "host:15672");
        assert_eq!((&*endpoint.user, &*endpoint.password), ("me", "p@ss"));
        assert!(Endpoint::parse("http://host:15672").is_none());
        assert!(Endpoint::parse("https://me:p@host").is_none());
    }
}
