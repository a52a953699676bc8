//! The files of TLS.

use std::path::{Path, PathBuf};

use crate::config::{Faults, Section};
use crate::messaging::BrokerErrorKind;

use super::Wrong;

#[derive(Clone, Debug, Default)]
pub(super) struct Tls {
    pub(super) ca_file: Option<PathBuf>,
    pub(super) certificate_file: Option<PathBuf>,
    pub(super) key_file: Option<PathBuf>,
}

impl Tls {
    /// A file that cannot be read is told by its name, which the library does not do.
    pub(super) fn readable(&self, file: &Path) -> Result<(), Wrong> {
        let Err(error) = std::fs::File::open(file) else {
            return Ok(());
        };
        let key = if self.ca_file.as_deref() == Some(file) {
            "ca_file"
        } else if self.certificate_file.as_deref() == Some(file) {
            "certificate_file"
        } else {
            "key_file"
        };
        let text = format!(
            "`{}` of `tls.{key}` cannot be read: {error}",
            file.display()
        );
        Err((BrokerErrorKind::Configuration, text))
    }

    pub(super) fn read(section: &Section<'_>, faults: &mut Faults) -> Self {
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
}
