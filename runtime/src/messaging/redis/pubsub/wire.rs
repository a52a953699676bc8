//! A message as a channel carries it: readable lines with its headers, an empty line, the body. What
//! does not begin like that is a body alone.

use bytes::Bytes;

use crate::message::Headers;

use super::super::fields::{self, Fields, Read};

/// The first line.
const MARK: &[u8] = b"interline/1\n";
const PAYLOAD: &str = "payload";

/// The lines of the headers and the body.
pub(in super::super) fn write(body: &[u8], headers: &Headers) -> Vec<u8> {
    let mut message = Vec::with_capacity(MARK.len() + body.len() + 64 * (headers.len() + 1));
    message.extend_from_slice(MARK);
    let mut at = 0_usize;
    fields::write(PAYLOAD, b"", headers, |part| {
        // First come the name and the value of the payload, which has no line.
        if at > 1 {
            let is_name = at.is_multiple_of(2);
            escape(part, is_name, &mut message);
            message.push(if is_name { b' ' } else { b'\n' });
        }
        at += 1;
    });
    message.push(b'\n');
    message.extend_from_slice(body);
    message
}

/// Reads what a channel carried; total.
pub(in super::super) fn read(message: Vec<u8>) -> Read {
    match headed(&message) {
        Some(mut read) => {
            let start = message.len() - read.body.len();
            read.body = Bytes::from(message).slice(start..);
            read
        }
        None => Read {
            body: message.into(),
            headers: Headers::new(),
            ttl: None,
        },
    }
}

fn headed(message: &[u8]) -> Option<Read> {
    let mut rest = message.strip_prefix(MARK)?;
    let mut lines: Fields = Vec::new();
    loop {
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        let (line, after) = (&rest[..end], &rest[end + 1..]);
        rest = after;
        if line.is_empty() {
            break;
        }
        let space = line.iter().position(|byte| *byte == b' ')?;
        lines.push((unescape(&line[..space]), unescape(&line[space + 1..])));
    }
    // The headers are those of an entry of a stream.
    lines.push((PAYLOAD.into(), rest.to_vec()));
    Some(fields::read(PAYLOAD, lines))
}

fn escape(part: &[u8], is_name: bool, into: &mut Vec<u8>) {
    for &byte in part {
        let must = byte < b' ' || byte == b'%' || byte == 0x7f || (is_name && byte == b' ');
        if must {
            into.extend_from_slice(format!("%{byte:02x}").as_bytes());
        } else {
            into.push(byte);
        }
    }
}

fn unescape(part: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(part.len());
    let mut at = 0;
    while let Some(&byte) = part.get(at) {
        let escaped = (byte == b'%')
            .then(|| std::str::from_utf8(part.get(at + 1..at + 3)?).ok())
            .flatten()
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match escaped {
            Some(escaped) => {
                plain.push(escaped);
                at += 3;
            }
            None => {
                plain.push(byte);
                at += 1;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::HeaderValue;

    #[test]
    fn what_we_write_reads_the_same_again() {
        let headers: Headers = [
            ("message-id", HeaderValue::from("m-1")),
            ("a name", HeaderValue::from("50 %\nof it")),
            ("count", HeaderValue::Int(-7)),
            ("raw", HeaderValue::Bytes(Bytes::from_static(b"\xff\x00\n"))),
        ]
        .into_iter()
        .collect();
        for body in [&b""[..], b"{}", b"\n\ninterline/1\n", b"\xff"] {
            let read = read(write(body, &headers));
            assert_eq!(&read.body[..], body);
            assert_eq!(read.headers, headers);
        }
    }

    #[test]
    fn it_is_what_a_person_reads() {
        let headers: Headers = [("message-id", "m-1"), ("sender", "shop")]
            .into_iter()
            .collect();
        assert_eq!(
            String::from_utf8(write(b"{\"id\":7}", &headers)).unwrap(),
            "interline/1\nh:message-id m-1\nh:sender shop\n\n{\"id\":7}"
        );
    }

    #[test]
    fn anything_else_is_a_body_alone() {
        for message in [
            &b"{\"id\":7}"[..],
            b"",
            b"interline/1",
            b"interline/1\nno end",
            b"interline/1\nnospace\n\nbody",
            b"interline/2\nh:a b\n\nbody",
        ] {
            let read = read(message.to_vec());
            assert_eq!(&read.body[..], message);
            assert!(read.headers.is_empty());
        }
    }
}
