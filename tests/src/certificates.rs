//! Authorities and certificates for servers and clients that speak TLS.

use std::error::Error;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

type Trouble = Box<dyn Error + Send + Sync>;

/// Who signs certificates.
pub type Authority = CertifiedIssuer<'static, KeyPair>;

/// An authority that nobody trusts yet.
///
/// # Errors
///
/// When no key can be made.
pub fn authority(name: &str) -> Result<Authority, Trouble> {
    let mut params = CertificateParams::new([])?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    Ok(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?)
}

/// Writes a certificate of `name` and its key; their paths.
///
/// # Errors
///
/// When no key can be made, or the folder takes no files.
pub fn certificate(
    by: &Authority,
    name: &str,
    folder: &Path,
) -> Result<(PathBuf, PathBuf), Trouble> {
    let params = CertificateParams::new([name.to_owned()])?;
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, by)?.pem();
    let paths = (
        folder.join(format!("{name}.pem")),
        folder.join(format!("{name}.key")),
    );
    std::fs::write(&paths.0, certificate)?;
    std::fs::write(&paths.1, key.serialize_pem())?;
    Ok(paths)
}
