//! What a TLS handshake that failed means to somebody who has to repair it.

use std::io;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};

use crate::message::format_time;
use crate::messaging::BrokerErrorKind;

use super::errors::Place;

/// The words for an error of TLS; `None` if it is none.
pub(super) fn explain(
    broker: &Arc<str>,
    place: &Place,
    error: &io::Error,
) -> Option<(BrokerErrorKind, String)> {
    use BrokerErrorKind::{Authentication, Configuration};
    let error = error.get_ref()?.downcast_ref::<Error>()?;
    let (host, keys) = (&place.host, format!("brokers.{broker}.tls"));
    let generally = || {
        (
            Configuration,
            format!("the TLS handshake with {host} failed: {error}"),
        )
    };
    Some(match error {
        Error::InvalidCertificate(reason) => match certificate(reason, place, &keys) {
            Some(text) => (Configuration, format!("{host} shows a certificate {text}")),
            None => generally(),
        },
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => (
            Configuration,
            format!(
                "{host} does not speak TLS; the url needs the server's TLS port (5671), or \
                 `amqp://` in place of `amqps://`"
            ),
        ),
        Error::AlertReceived(alert) if is_about_the_client(*alert) => (
            Authentication,
            if place.certificate {
                format!(
                    "{host} refused the client certificate of `{keys}.certificate_file` ({})",
                    in_words(*alert)
                )
            } else {
                format!(
                    "{host} wants a client certificate; name its files in `{keys}.certificate_file` \
                     and `{keys}.key_file`"
                )
            },
        ),
        _ => generally(),
    })
}

/// What is wrong with the server's certificate, after "shows a certificate".
fn certificate(reason: &CertificateError, place: &Place, keys: &str) -> Option<String> {
    let name = place
        .host
        .rsplit_once(':')
        .map_or(&*place.host, |(name, _)| name);
    let until = |time: &UnixTime| format_time(UNIX_EPOCH + Duration::from_secs(time.as_secs()));
    Some(match reason {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => format!(
            "of an authority that is not trusted here; name the file of its authority in \
             `{keys}.ca_file`"
        ),
        CertificateError::NotValidForNameContext { presented, .. } => {
            // As rustls lists them: `DnsName("rabbit")`, `IpAddress(10.0.0.1)`.
            let names: Vec<_> = presented.iter().map(|name| bare(name)).collect();
            let names = if names.is_empty() {
                "no name at all".to_owned()
            } else {
                format!("`{}`", names.join("`, `"))
            };
            format!(
                "for {names}, not for `{name}`; put a name that it has in the url, or give the server \
                 a certificate with this one"
            )
        }
        CertificateError::NotValidForName => {
            format!("that is not for `{name}`; put a name that it has in the url")
        }
        CertificateError::ExpiredContext { not_after, .. } => format!(
            "that expired at {}; the server needs a new one",
            until(not_after)
        ),
        CertificateError::Expired => "that has expired; the server needs a new one".to_owned(),
        CertificateError::NotValidYetContext { not_before, .. } => format!(
            "that is not valid before {}; look at the clocks of both machines",
            until(not_before)
        ),
        CertificateError::NotValidYet => {
            "that is not valid yet; look at the clocks of both machines".to_owned()
        }
        CertificateError::Revoked => "that was revoked; the server needs a new one".to_owned(),
        _ => return None,
    })
}

fn bare(name: &str) -> &str {
    let inner = name
        .split_once('(')
        .and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.unwrap_or(name).trim_matches('"')
}

fn is_about_the_client(alert: AlertDescription) -> bool {
    use AlertDescription as A;
    matches!(
        alert,
        A::AccessDenied
            | A::BadCertificate
            | A::CertificateExpired
            | A::CertificateRequired
            | A::CertificateRevoked
            | A::CertificateUnknown
            | A::HandshakeFailure
            | A::NoCertificate
            | A::UnknownCA
            | A::UnsupportedCertificate
    )
}

fn in_words(alert: AlertDescription) -> String {
    use AlertDescription as A;
    match alert {
        A::CertificateExpired => "it has expired".to_owned(),
        A::CertificateRevoked => "it was revoked".to_owned(),
        A::UnknownCA => "the server does not trust its authority".to_owned(),
        alert => format!("the server says {alert:?}"),
    }
}
