//! Authorities and certificates of a test, as files.

use std::fs;
use std::path::{Path, PathBuf};

use interline::testing::TlsFiles;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};
use tempfile::TempDir;

use crate::support::Error;

/// Who signs certificates.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new(name: &str) -> Result<Self, Error> {
        let mut params = CertificateParams::new([])?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        Ok(Self(issuer))
    }

    fn sign(&self, params: &CertificateParams) -> Result<Pair, Error> {
        let key = KeyPair::generate()?;
        Ok(Pair {
            certificate: params.signed_by(&key, &self.0)?.pem(),
            key: key.serialize_pem(),
        })
    }

    /// A certificate of a server called `name`.
    pub fn server(&self, name: &str) -> Result<Pair, Error> {
        self.sign(&server_of(name)?)
    }

    /// One that expired at the beginning of 2021.
    pub fn expired_server(&self, name: &str) -> Result<Pair, Error> {
        let mut params = server_of(name)?;
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
        self.sign(&params)
    }

    /// A certificate of a client whose common name is `user`.
    pub fn client(&self, user: &str) -> Result<Pair, Error> {
        let mut params = CertificateParams::new([])?;
        params.distinguished_name.push(DnType::CommonName, user);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(&params)
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }
}

fn server_of(name: &str) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::new([name.to_owned()])?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok(params)
}

/// A certificate and its key, as PEM.
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

/// A directory of such files.
pub struct Files(TempDir);

impl Files {
    pub fn new() -> Result<Self, Error> {
        Ok(Self(tempfile::tempdir()?))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    pub fn write(&self, name: &str, pem: &str) -> Result<(), Error> {
        Ok(fs::write(self.path(name), pem)?)
    }

    /// Writes `NAME.pem` and `NAME.key`.
    pub fn write_pair(&self, name: &str, pair: &Pair) -> Result<(), Error> {
        self.write(&format!("{name}.pem"), &pair.certificate)?;
        self.write(&format!("{name}.key"), &pair.key)
    }

    /// What a server needs that shows the pair `server` and trusts `ca.pem`.
    pub fn of_server(&self, require_client_certificate: bool) -> TlsFiles {
        TlsFiles {
            authorities: self.path("ca.pem"),
            certificate: self.path("server.pem"),
            key: self.path("server.key"),
            require_client_certificate,
        }
    }

    pub fn root(&self) -> &Path {
        self.0.path()
    }
}
