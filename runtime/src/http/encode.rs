//! Percent-encoding.

use std::fmt;

/// Adds `text` with everything encoded but letters, digits and `-._~`, which never mean anything in a
/// URL.
pub(super) fn component(target: &mut String, text: &str) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            target.push(char::from(byte));
        } else {
            target.push('%');
            target.push(char::from(DIGITS[usize::from(byte >> 4)]));
            target.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
    }
}

/// What is written to it is added as [`component`] does.
pub(super) struct Components<'t>(pub(super) &'t mut String);

impl fmt::Write for Components<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        component(self.0, text);
        Ok(())
    }
}

/// What [`component`] encoded.
pub(super) fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
        if let (Some(high), Some(low)) = (digit(rest.next()), digit(rest.next())) {
            bytes.push((high * 16 + low) as u8);
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_comes_back() {
        let text = "a/b?c=%41&ä ☃\n.~-_";
        let mut encoded = String::new();
        component(&mut encoded, text);
        assert_eq!(encoded, "a%2Fb%3Fc%3D%2541%26%C3%A4%20%E2%98%83%0A.~-_");
        assert_eq!(decode(&encoded), text);
    }
}
