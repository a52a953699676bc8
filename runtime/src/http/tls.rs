//! Which connections are made to a service: in the clear or not, and which HTTP is spoken on them.

use std::time::Duration;

use crate::config::{Faults, Section};
use crate::discovery::EndpointSet;
use crate::security::tls::Tls;

use super::settings::period;

/// Which HTTP is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Protocol {
    /// HTTP/2 where a server of TLS offers it.
    #[default]
    Auto,
    Http1,
    /// HTTP/2 and nothing else, without asking.
    Http2,
}

impl Protocol {
    const NAMES: &[&str] = &["auto", "http1", "http2"];
}

/// What the configuration says about the connections to a service.
#[derive(Clone, Debug, Default)]
pub(crate) struct Security {
    protocol: Protocol,
    https_only: bool,
    /// Whether an address may be one of TLS.
    #[cfg_attr(
        not(feature = "tls"),
        allow(dead_code, reason = "only TLS has use of it")
    )]
    wanted: bool,
    #[cfg_attr(
        not(feature = "tls"),
        allow(dead_code, reason = "only TLS has use of it")
    )]
    files: Tls,
    /// How often the files are looked at; `None` for only at the start.
    look_every: Option<Duration>,
}

/// How often the files are looked at unless something else is said.
const LOOK_EVERY: Duration = Duration::from_secs(30);

impl Security {
    pub(super) fn read(
        section: &Section<'_>,
        endpoints: Option<&EndpointSet>,
        faults: &mut Faults,
    ) -> Self {
        let within = section.section("tls", faults);
        let files = Tls::read(&within, faults);
        let look_every = within.duration("reload", .., faults);
        let look_every = period(look_every.unwrap_or(LOOK_EVERY), &within, "reload", faults);
        if within.contains("reload") && files.asked().is_none() {
            let fault = within.fault("reload", "has no effect: no file is named beside it");
            faults.push(fault.with_help("leave it out"));
        }
        let https_only = section.bool("https_only", faults).unwrap_or(false);
        let protocol = match section.choice("protocol", Protocol::NAMES, faults) {
            Some("http1") => Protocol::Http1,
            Some("http2") => Protocol::Http2,
            _ => Protocol::Auto,
        };
        let clear = endpoints.and_then(|all| all.iter().find(|one| one.scheme() == "http"));
        if let (true, Some(clear)) = (https_only, clear) {
            let message = format!(
                "`{}` is not encrypted, and `https_only` is set",
                clear.url()
            );
            let fault = section.fault("urls", message);
            faults.push(fault.with_help("begin it with `https://`, or leave out `https_only`"));
        }
        let all_clear = endpoints.is_some_and(|all| all.iter().all(|one| one.scheme() == "http"));
        if let (true, Some(key)) = (all_clear, files.asked()) {
            let fault = within.fault(key, "has no effect: no address of the service has TLS");
            faults.push(fault.with_help("begin the addresses with `https://`"));
        }
        Self {
            protocol,
            https_only,
            wanted: !all_clear,
            files,
            look_every,
        }
    }

    /// Whether HTTP/2 is spoken, without asking.
    pub(super) fn is_http2(&self) -> bool {
        self.protocol == Protocol::Http2
    }

    /// How often to look whether the files have changed; `None` for never, or where there is none.
    pub(super) fn look_every(&self) -> Option<Duration> {
        self.look_every.filter(|_| self.has_files())
    }

    fn has_files(&self) -> bool {
        cfg!(feature = "tls") && self.wanted && self.files.asked().is_some()
    }

    /// What stands in the files now; `None` where there is none. Reads them.
    pub(super) fn look(&self) -> Option<FileState> {
        self.has_files().then(|| self.files.state())
    }

    /// Says to a client of reqwest what is known here. Reads the files.
    ///
    /// # Errors
    /// What is wrong with a file, in words.
    pub(super) fn prepare(&self) -> Result<Prepared, String> {
        Ok(Prepared {
            protocol: self.protocol,
            https_only: self.https_only,
            #[cfg(feature = "tls")]
            config: self.config()?,
        })
    }

    #[cfg(feature = "tls")]
    fn config(&self) -> Result<rustls::ClientConfig, String> {
        // The system's authorities take a while to read.
        let mut config = if self.wanted {
            self.files.client_config()?
        } else {
            Tls::nobody()?
        };
        let offered: &[&[u8]] = match self.protocol {
            Protocol::Auto => &[b"h2", b"http/1.1"],
            Protocol::Http1 => &[b"http/1.1"],
            Protocol::Http2 => &[b"h2"],
        };
        config.alpn_protocols = offered.iter().map(|name| name.to_vec()).collect();
        Ok(config)
    }
}

/// What stands in the files, as a number.
pub(super) type FileState = u64;

/// What every connection to the service takes, once the files are read.
pub(super) struct Prepared {
    protocol: Protocol,
    https_only: bool,
    #[cfg(feature = "tls")]
    config: rustls::ClientConfig,
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prepared")
            .field("protocol", &self.protocol)
            .field("https_only", &self.https_only)
            .finish_non_exhaustive()
    }
}

impl Prepared {
    pub(super) fn apply(&self, builder: reqwest::ClientBuilder) -> reqwest::ClientBuilder {
        let builder = builder.https_only(self.https_only);
        let builder = match self.protocol {
            Protocol::Auto => builder,
            Protocol::Http1 => builder.http1_only(),
            Protocol::Http2 => builder.http2_prior_knowledge(),
        };
        #[cfg(feature = "tls")]
        let builder = builder.tls_backend_preconfigured(self.config.clone());
        builder
    }
}
