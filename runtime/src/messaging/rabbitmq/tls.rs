//! `[brokers.NAME.tls]`: which authorities are trusted, and the client's own certificate.

use std::path::PathBuf;

use crate::config::{Faults, Section};

#[derive(Clone, Debug, Default)]
pub(super) struct Tls {
    ca_file: Option<PathBuf>,
    certificate_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    /// The client certificate is the identity.
    pub(super) external: bool,
}

impl Tls {
    pub(super) fn read(section: &Section<'_>, faults: &mut Faults) -> Self {
        let mut path = |key: &str| section.string(key, faults).map(PathBuf::from);
        let tls = Self {
            ca_file: path("ca_file"),
            certificate_file: path("certificate_file"),
            key_file: path("key_file"),
            external: section.bool("external", faults).unwrap_or(false),
        };
        match (&tls.certificate_file, &tls.key_file) {
            (Some(_), None) => {
                faults.push(section.fault("key_file", "is missing beside `certificate_file`"));
            }
            (None, Some(_)) => {
                faults.push(section.fault("certificate_file", "is missing beside `key_file`"));
            }
            (None, None) if tls.external => {
                faults.push(section.fault("external", "needs `certificate_file` and `key_file`"));
            }
            _ => {}
        }
        tls
    }

    /// The first key that says something, which only TLS can honour.
    pub(super) fn asked(&self) -> Option<&'static str> {
        let asked = [
            ("ca_file", self.ca_file.is_some()),
            ("certificate_file", self.certificate_file.is_some()),
            ("external", self.external),
        ];
        asked
            .into_iter()
            .find_map(|(key, asked)| asked.then_some(key))
    }

    /// Whether there is a client certificate.
    #[cfg(feature = "tls")]
    pub(super) fn has_certificate(&self) -> bool {
        self.certificate_file.is_some()
    }
}

#[cfg(feature = "tls")]
pub(super) use with_rustls::Connector;

#[cfg(feature = "tls")]
mod with_rustls {
    use std::path::Path;
    use std::sync::Arc;

    use lapin::tcp::RustlsConnector;
    use rustls::crypto::{CryptoProvider, aws_lc_rs};
    use rustls::pki_types::pem::{Error as PemError, PemObject};
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use rustls::{ClientConfig, RootCertStore};

    use crate::messaging::BrokerErrorKind;

    use super::Tls;

    /// What is wrong, in words, and how it is classed.
    type Wrong = (BrokerErrorKind, String);

    /// Makes TLS connections.
    pub(in super::super) type Connector = RustlsConnector;

    impl Tls {
        /// Reads the files anew, so that what was exchanged since counts for the next connection.
        pub(in super::super) fn connector(&self) -> Result<Connector, Wrong> {
            // The program's own provider comes first, and none is made the process's by us.
            let provider = CryptoProvider::get_default()
                .cloned()
                .unwrap_or_else(|| Arc::new(aws_lc_rs::default_provider()));
            let wanting = ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .map_err(|error| wrong(format!("the crypto provider cannot do TLS: {error}")))?
                .with_root_certificates(self.roots()?);
            let config = match (&self.certificate_file, &self.key_file) {
                (Some(certificate), Some(key)) => wanting
                    .with_client_auth_cert(certificates(certificate)?, private_key(key)?)
                    .map_err(|error| {
                        let (certificate, key) = (certificate.display(), key.display());
                        wrong(format!(
                            "the key in `{key}` does not go with the certificate in \
                             `{certificate}`: {error}"
                        ))
                    })?,
                _ => wanting.with_no_client_auth(),
            };
            Ok(config.into())
        }

        /// Those of `ca_file` and no others; without it, the system's.
        fn roots(&self) -> Result<RootCertStore, Wrong> {
            let mut roots = RootCertStore::empty();
            let Some(path) = &self.ca_file else {
                let found = rustls_native_certs::load_native_certs();
                // A system's store often has a few that nobody can read; the others count.
                roots.add_parsable_certificates(found.certs);
                if roots.is_empty() {
                    return Err(wrong(
                        "this system has no authorities to trust; name a file of them in \
                         `tls.ca_file`"
                            .to_owned(),
                    ));
                }
                return Ok(roots);
            };
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| {
                    wrong(format!(
                        "`{}` has a certificate that cannot be used: {error}",
                        path.display()
                    ))
                })?;
            }
            Ok(roots)
        }
    }

    fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Wrong> {
        let text = read(path)?;
        let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
        match all {
            Ok(all) if !all.is_empty() => Ok(all),
            Ok(_) => Err(wrong(format!(
                "`{}` holds no certificate; it must be PEM text (`-----BEGIN CERTIFICATE-----`)",
                path.display()
            ))),
            Err(error) => Err(wrong(format!(
                "`{}` is no PEM text: {error}",
                path.display()
            ))),
        }
    }

    fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Wrong> {
        PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|error| {
            let path = path.display();
            wrong(match error {
                PemError::NoItemsFound => format!(
                    "`{path}` holds no private key that is not encrypted; it must be PEM text \
                     (`-----BEGIN PRIVATE KEY-----`)"
                ),
                error => format!("`{path}` is no PEM text: {error}"),
            })
        })
    }

    fn read(path: &Path) -> Result<Vec<u8>, Wrong> {
        std::fs::read(path)
            .map_err(|error| wrong(format!("`{}` cannot be read: {error}", path.display())))
    }

    fn wrong(message: String) -> Wrong {
        (BrokerErrorKind::Configuration, message)
    }
}
