//! Who may be talked to: authorities and certificates.

pub(crate) mod tls;
