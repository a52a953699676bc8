//! A section `tls`: which authorities are trusted, and the client's own certificate.

#[cfg(feature = "http")]
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
#[cfg(any(feature = "http", feature = "tls"))]
use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use crate::config::{Faults, Section};

/// The files of one side of a TLS connection: the side that connects.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tls {
    ca_file: Option<PathBuf>,
    certificate_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
}

impl Tls {
    /// Reads `ca_file`, `certificate_file` and `key_file`. Opens none of them.
    pub(crate) fn read(section: &Section<'_>, faults: &mut Faults) -> Self {
        let mut path = |key: &str| section.string(key, faults).map(PathBuf::from);
        let tls = Self {
            ca_file: path("ca_file"),
            certificate_file: path("certificate_file"),
            key_file: path("key_file"),
        };
        match (&tls.certificate_file, &tls.key_file) {
            (Some(_), None) => {
                faults.push(section.fault("key_file", "is missing beside `certificate_file`"));
            }
            (None, Some(_)) => {
                faults.push(section.fault("certificate_file", "is missing beside `key_file`"));
            }
            _ => {}
        }
        tls
    }

    /// The first key that says something, which only TLS can honour.
    pub(crate) fn asked(&self) -> Option<&'static str> {
        let asked = [
            ("ca_file", self.ca_file.is_some()),
            ("certificate_file", self.certificate_file.is_some()),
        ];
        asked
            .into_iter()
            .find_map(|(key, asked)| asked.then_some(key))
    }

    /// What stands in the files, as a number that is another one when that changes; a file that cannot be
    /// read counts with the reason. Reads them: the times of files tell less than they seem to.
    #[cfg(feature = "http")]
    pub(crate) fn state(&self) -> u64 {
        let mut state = DefaultHasher::new();
        for path in [&self.ca_file, &self.certificate_file, &self.key_file] {
            let read = path.as_deref().map(read_bounded);
            read.map(|read| read.map_err(|error| error.kind()))
                .hash(&mut state);
        }
        state.finish()
    }

    /// Whether there is a client certificate.
    #[cfg_attr(
        not(all(feature = "tls", feature = "rabbitmq")),
        allow(dead_code, reason = "only RabbitMQ takes it as the identity")
    )]
    pub(crate) fn has_certificate(&self) -> bool {
        self.certificate_file.is_some()
    }
}

/// The longest file of certificates, in bytes.
#[cfg(any(feature = "http", feature = "tls"))]
const FILE_BYTES_MAX: u64 = 16 << 20;

/// A file, of which nobody knows what it is, whole.
#[cfg(any(feature = "http", feature = "tls"))]
fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut file = File::open(path)?.take(FILE_BYTES_MAX + 1);
    file.read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let text = format!("it is longer than {FILE_BYTES_MAX} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    Ok(bytes)
}

#[cfg(feature = "tls")]
mod with_rustls {
    use std::path::Path;
    use std::sync::Arc;

    use rustls::crypto::{CryptoProvider, aws_lc_rs};
    use rustls::pki_types::pem::{Error as PemError, PemObject};
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use rustls::{ClientConfig, RootCertStore};

    use super::Tls;

    impl Tls {
        /// Reads the files anew, so that what was exchanged since counts for the next connection.
        ///
        /// # Errors
        /// What is wrong with a file, in words.
        pub(crate) fn client_config(&self) -> Result<ClientConfig, String> {
            let wanting = ClientConfig::builder_with_provider(provider())
                .with_safe_default_protocol_versions()
                .map_err(|error| format!("the crypto provider cannot do TLS: {error}"))?
                .with_root_certificates(self.roots()?);
            let config = match (&self.certificate_file, &self.key_file) {
                (Some(certificate), Some(key)) => wanting
                    .with_client_auth_cert(certificates(certificate)?, private_key(key)?)
                    .map_err(|error| {
                        let (certificate, key) = (certificate.display(), key.display());
                        format!(
                            "the key in `{key}` does not go with the certificate in \
                             `{certificate}`: {error}"
                        )
                    })?,
                _ => wanting.with_no_client_auth(),
            };
            Ok(config)
        }

        /// Trusts nobody: for connections that are in the clear.
        #[cfg(feature = "http")]
        pub(crate) fn nobody() -> Result<ClientConfig, String> {
            let wanting = ClientConfig::builder_with_provider(provider())
                .with_safe_default_protocol_versions()
                .map_err(|error| format!("the crypto provider cannot do TLS: {error}"))?;
            let roots = RootCertStore::empty();
            Ok(wanting.with_root_certificates(roots).with_no_client_auth())
        }

        /// Those of `ca_file` and no others; without it, the system's.
        fn roots(&self) -> Result<RootCertStore, String> {
            let mut roots = RootCertStore::empty();
            let Some(path) = &self.ca_file else {
                let found = rustls_native_certs::load_native_certs();
                // A system's store often has a few that nobody can read; the others count.
                roots.add_parsable_certificates(found.certs);
                if roots.is_empty() {
                    return Err(
                        "this system has no authorities to trust; name a file of them in \
                         `tls.ca_file`"
                            .to_owned(),
                    );
                }
                return Ok(roots);
            };
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| {
                    format!(
                        "`{}` has a certificate that cannot be used: {error}",
                        path.display()
                    )
                })?;
            }
            Ok(roots)
        }
    }

    fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
        let text = read(path)?;
        let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
        match all {
            Ok(all) if !all.is_empty() => Ok(all),
            Ok(_) => Err(format!(
                "`{}` holds no certificate; it must be PEM text (`-----BEGIN CERTIFICATE-----`)",
                path.display()
            )),
            Err(error) => Err(format!("`{}` is no PEM text: {error}", path.display())),
        }
    }

    fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
        PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|error| {
            let path = path.display();
            match error {
                PemError::NoItemsFound => format!(
                    "`{path}` holds no private key that is not encrypted; it must be PEM text \
                     (`-----BEGIN PRIVATE KEY-----`)"
                ),
                error => format!("`{path}` is no PEM text: {error}"),
            }
        })
    }

    fn read(path: &Path) -> Result<Vec<u8>, String> {
        super::read_bounded(path)
            .map_err(|error| format!("`{}` cannot be read: {error}", path.display()))
    }

    /// The program's own provider comes first, and none is made the process's by us.
    fn provider() -> Arc<CryptoProvider> {
        CryptoProvider::get_default()
            .cloned()
            .unwrap_or_else(|| Arc::new(aws_lc_rs::default_provider()))
    }
}
