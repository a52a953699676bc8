/// What stands for a secret wherever one would be printed.
pub(crate) const REDACTED: &str = "***";

const SENSITIVE_ENDINGS: &[&str] = &[
    "password",
    "passwords",
    "passwd",
    "passphrase",
    "passcode",
    "secret",
    "secrets",
    "token",
    "tokens",
    "credential",
    "credentials",
    "apikey",
    "privatekey",
    "accesskey",
    "signingkey",
    "encryptionkey",
];

/// Takes the password out of a URL: `amqp://user:pw@host/vhost` becomes
/// `amqp://user:***@host/vhost`.
///
/// It never fails and rather hides too much than too little: a password with an unescaped `@` or
/// `/` is hidden whole. Parameters named like a secret (`?password=`) are hidden too, and several
/// URLs in one text are each redacted. Text without a URL comes back as it is.
///
/// ```
/// use interline::config::redact_url;
///
/// assert_eq!(redact_url("amqp://app:p@ss/w@rabbit:5672/prod"), "amqp://app:***@rabbit:5672/prod");
/// assert_eq!(redact_url("not a url"), "not a url");
/// ```
pub fn redact_url(text: &str) -> String {
    let mut redacted = String::with_capacity(text.len());
    let mut rest = text;
    loop {
        let end = next_url(rest).unwrap_or(rest.len());
        let (one, tail) = rest.split_at(end);
        // The parameters first: an `@` in one of them must not be taken for the end of the password.
        redacted.push_str(&redact_userinfo(&redact_parameters(one)));
        if tail.is_empty() {
            return redacted;
        }
        rest = tail;
    }
}

/// True for a key whose value must not be printed: `password`, `sasl_password`, `client-secret`,
/// `token`, `key_passphrase`.
pub(super) fn is_sensitive_key(key: &str) -> bool {
    let folded: String = key
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_lowercase())
        .collect();
    SENSITIVE_ENDINGS
        .iter()
        .any(|ending| folded.ends_with(ending))
}

/// A value of the key, fit to be printed.
pub(super) fn redact_text(key: &str, text: &str) -> String {
    if is_sensitive_key(key) || text.contains("PRIVATE KEY-----") {
        REDACTED.to_owned()
    } else {
        redact_url(text)
    }
}

/// Where a second URL begins. Only behind a separator, so that a password that holds `://` is
/// not taken for one.
fn next_url(text: &str) -> Option<usize> {
    let mut from = text.find("://")? + 3;
    while let Some(found) = text[from..].find("://") {
        let mark = from + found;
        let is_scheme = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
        let start = text[..mark].trim_end_matches(is_scheme).len();
        let separated = text[..start].ends_with(|c: char| {
            c.is_whitespace() || matches!(c, ',' | ';' | '"' | '\'' | '`' | '(' | '<' | '[' | '{')
        });
        if start < mark && separated {
            return Some(start);
        }
        from = mark + 3;
    }
    None
}

fn redact_userinfo(text: &str) -> String {
    let Some(scheme_end) = text.find("://").map(|at| at + 3) else {
        return text.to_owned();
    };
    let (scheme, rest) = text.split_at(scheme_end);
    match (rest.find(':'), rest.rfind('@')) {
        (Some(colon), Some(at)) if colon < at => {
            format!("{scheme}{}:{REDACTED}{}", &rest[..colon], &rest[at..])
        }
        _ => text.to_owned(),
    }
}

fn redact_parameters(text: &str) -> String {
    let Some(query) = text
        .find("://")
        .and_then(|scheme| text[scheme..].find('?').map(|at| scheme + at))
    else {
        return text.to_owned();
    };
    let (before, parameters) = text.split_at(query);
    let mut redacted = before.to_owned();
    for parameter in parameters.split_inclusive(['&', '?']) {
        match parameter.split_once('=') {
            Some((name, value)) if is_sensitive_key(name) => {
                redacted.push_str(name);
                redacted.push('=');
                redacted.push_str(REDACTED);
                if value.ends_with('&') {
                    redacted.push('&');
                }
            }
            _ => redacted.push_str(parameter),
        }
    }
    redacted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_of_a_url_is_hidden_and_nothing_else() {
        let cases = [
            ("amqp://user:pw@host/vhost", "amqp://user:***@host/vhost"),
            (
                "amqps://user:pw@[::1]:5671/%2f",
                "amqps://user:***@[::1]:5671/%2f",
            ),
            ("redis://:pw@host:6379/0", "redis://:***@host:6379/0"),
            ("amqp://user@host", "amqp://user@host"),
            ("amqp://host:5672/vhost", "amqp://host:5672/vhost"),
            ("amqp://user:@host", "amqp://user:***@host"),
            ("", ""),
            ("plain text: a@b", "plain text: a@b"),
            ("://", "://"),
            ("://:@", "://:***@"),
        ];
        for (url, expected) in cases {
            assert_eq!(redact_url(url), expected, "{url}");
        }
    }

    #[test]
    fn a_password_that_should_have_been_escaped_is_hidden_whole() {
        for password in [
            "p@w", "p/w", "p?w", "p#w", "p:w", "p w", "a://b", "ü€", "@@",
        ] {
            let url = format!("amqp://user:{password}@host/v");
            assert_eq!(redact_url(&url), "amqp://user:***@host/v", "{password}");
        }
    }

    #[test]
    fn every_url_of_a_text_is_redacted() {
        assert_eq!(
            redact_url("amqp://a:1@x,amqp://b:2@y"),
            "amqp://a:***@x,amqp://b:***@y"
        );
        assert_eq!(
            redact_url("no route from `amqp://a:1@x` to amqp://b:2@y?z"),
            "no route from `amqp://a:***@x` to amqp://b:***@y?z"
        );
    }

    #[test]
    fn parameters_named_like_a_secret_are_hidden() {
        assert_eq!(
            redact_url("postgres://h/db?user=a&password=b&sslmode=require"),
            "postgres://h/db?user=a&password=***&sslmode=require"
        );
        assert_eq!(
            redact_url("http://h/?access_token=b"),
            "http://h/?access_token=***"
        );
        assert_eq!(
            redact_url("amqp://u:p@h/?token=a@b"),
            "amqp://u:***@h/?token=***"
        );
    }

    #[test]
    fn redacting_twice_changes_nothing() {
        let once = redact_url("amqp://u:p@h/v?password=x&y=z, amqp://u:p@h");
        assert_eq!(redact_url(&once), once);
    }

    #[test]
    fn random_text_never_panics_and_never_shows_the_password() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let pieces = [
            "amqp", "://", ":", "@", "/", "?", "&", "=", "é", " ", ",", "h", "[", "password",
        ];
        for _ in 0..20_000 {
            let mut text: String = (0..random.usize(..12))
                .map(|_| pieces[random.usize(..pieces.len())])
                .collect();
            redact_url(&text);
            text.push_str("; amqp://user:CANARY@host");
            let shown = redact_url(&text);
            assert!(!shown.contains("CANARY"), "seed {seed}: {text} -> {shown}");
        }
    }

    #[test]
    fn keys_that_hold_secrets_are_known_by_their_names() {
        for key in [
            "password",
            "sasl_password",
            "client-secret",
            "clientSecret",
            "token",
            "key_passphrase",
            "API_KEY",
        ] {
            assert!(is_sensitive_key(key), "{key}");
        }
        for key in ["url", "key", "routing_key", "token_url", "max_attempts", ""] {
            assert!(!is_sensitive_key(key), "{key}");
        }
    }
}
