//! Where requests go.

use reqwest::Url;

use super::Cause;

/// What stands before the path of every request to one instance, taken apart once and not for each.
#[derive(Debug)]
pub(in super::super) struct Address {
    text: Box<str>,
    /// `None` where it is none, which is told to whoever sends a request there.
    base: Option<Url>,
}

impl Address {
    /// Scheme, host and port.
    pub(in super::super) fn new(origin: &str) -> Self {
        Self {
            text: origin.into(),
            base: Url::parse(origin).ok(),
        }
    }

    /// The address of a path with its query, from the first slash on.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(in super::super) fn of(&self, target: &str) -> Result<Url, Cause> {
        if !target.is_empty() && !target.starts_with(['/', '?', '#']) {
            // It would say more of the host.
            return Err(Cause(format!(
                "the path `{target}` does not begin with a slash"
            )));
        }
        match &self.base {
            Some(base) if is_plain(target) => {
                let (path, query) = match target.split_once('?') {
                    Some((path, query)) => (path, Some(query)),
                    None => (target, None),
                };
                let mut url = base.clone();
                url.set_path(path);
                if query.is_some() {
                    url.set_query(query);
                }
                Ok(url)
            }
            _ => {
                let whole = format!("{}{target}", self.text);
                Url::parse(&whole).map_err(|error| Cause(error.to_string()))
            }
        }
    }
}

/// Whether it says the same by itself as at the end of an address. After `#` comes what is not sent, and is
/// no part of a path or query; and of spaces and the like it counts where they stand.
fn is_plain(target: &str) -> bool {
    target.starts_with('/') && target.bytes().all(|byte| byte > b' ' && byte != b'#')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_what_it_is_as_a_whole() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        let parts = [
            "/",
            "/",
            "a",
            "b.c",
            "..",
            ".",
            "%2F",
            "%2e",
            "?",
            "?",
            "&",
            "=",
            "#",
            "\\",
            ":",
            "@",
            "//",
            " ",
            "\t",
            "\n",
            "ä",
            "\u{1f600}",
            "\"",
            "<",
            "{",
            "'",
            "|",
            "+",
            ";",
            "%",
            "\u{0}",
            "[",
        ];
        for origin in [
            "http://orders-1:8080",
            "http://127.0.0.1:80",
            "https://[::1]:8443",
            "https://Shop.Test",
        ] {
            let address = Address::new(origin);
            for _ in 0..20_000 {
                let mut target = if rng.u8(..) < 250 { "/" } else { "" }.to_owned();
                for _ in 0..rng.usize(..8) {
                    target.push_str(parts[rng.usize(..parts.len())]);
                }
                let whole = Url::parse(&format!("{origin}{target}"));
                if !target.is_empty() && !target.starts_with(['/', '?', '#']) {
                    assert!(address.of(&target).is_err(), "{target:?}");
                    continue;
                }
                match (address.of(&target), whole) {
                    (Ok(of), Ok(whole)) => assert_eq!(of, whole, "{target:?}"),
                    (Err(_), Err(_)) => {}
                    (of, whole) => panic!("{target:?}: {of:?} and {whole:?}"),
                }
            }
        }
    }

    #[test]
    fn what_is_no_address_is_said() {
        let error = Address::new("http://a:99999").of("/b").unwrap_err();
        assert!(error.to_string().contains("port"), "{error}");
    }
}
