//! `[brokers.NAME.tls]`: which authorities are trusted, and the client's own certificate.

use crate::config::{Faults, Section};
use crate::security::tls::Tls as Files;

#[derive(Clone, Debug, Default)]
pub(super) struct Tls {
    files: Files,
    /// The client certificate is the identity.
    pub(super) external: bool,
}

impl Tls {
    pub(super) fn read(section: &Section<'_>, faults: &mut Faults) -> Self {
        let before = faults.len();
        let tls = Self {
            files: Files::read(section, faults),
            external: section.bool("external", faults).unwrap_or(false),
        };
        if tls.external && !tls.files.has_certificate() && faults.len() == before {
            faults.push(section.fault("external", "needs `certificate_file` and `key_file`"));
        }
        tls
    }

    /// The first key that says something, which only TLS can honour.
    pub(super) fn asked(&self) -> Option<&'static str> {
        self.files.asked().or(self.external.then_some("external"))
    }

    /// Whether there is a client certificate.
    #[cfg(feature = "tls")]
    pub(super) fn has_certificate(&self) -> bool {
        self.files.has_certificate()
    }

    /// Reads the files anew, so that what was exchanged since counts for the next connection.
    #[cfg(feature = "tls")]
    pub(super) fn connector(&self) -> Result<Connector, (BrokerErrorKind, String)> {
        let config = self.files.client_config();
        let config = config.map_err(|why| (BrokerErrorKind::Configuration, why))?;
        Ok(config.into())
    }
}

#[cfg(feature = "tls")]
use crate::messaging::BrokerErrorKind;

/// Makes TLS connections.
#[cfg(feature = "tls")]
pub(super) type Connector = lapin::tcp::RustlsConnector;
