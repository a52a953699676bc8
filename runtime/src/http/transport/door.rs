//! An instance that has an address, and a name by which it is called: the one in its certificate.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use http::header::HeaderValue;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::discovery::Endpoint;

use super::address::Address;

/// As many generations of clients are in use at once: that of now, and one that leaves.
const GENERATIONS: usize = 2;

/// How one instance is called by its name.
#[derive(Debug)]
pub(in super::super) struct Door {
    host: Box<str>,
    /// Where its requests go, as they say it.
    address: Address,
    /// Where its connections go, with TLS or HTTP/2. With HTTP/1 in the clear they go where `address` says,
    /// and the name is in a header.
    authority: Option<Box<str>>,
    header: Option<HeaderValue>,
    /// Its own clients, by the number of their generation: one that all share would use the connections of
    /// another instance of the same name.
    clients: Mutex<Vec<(u64, reqwest::Client)>>,
}

impl Door {
    /// `None` where the instance is called as its address says. A request of HTTP/2 says the name in its
    /// `:authority`, which is that of its address: beside it, a header would be another name.
    pub(in super::super) fn of(
        endpoint: &Endpoint,
        host: Option<&str>,
        is_http2: bool,
    ) -> Option<Self> {
        let host = endpoint.host().or(host)?;
        let (url, scheme) = (endpoint.url(), endpoint.scheme());
        let authority = endpoint.authority();
        let (_, port) = authority.rsplit_once(':')?;
        let named = format!("{host}:{port}");
        let is_direct = is_http2 || scheme == "https";
        Some(Self {
            host: host.into(),
            address: match is_direct {
                true => Address::new(&format!("{scheme}://{named}")),
                false => Address::new(url),
            },
            header: HeaderValue::from_str(&named).ok().filter(|_| !is_direct),
            authority: is_direct.then(|| authority.into()),
            clients: Mutex::default(),
        })
    }

    pub(in super::super) fn host(&self) -> &str {
        &self.host
    }

    pub(in super::super) fn address(&self) -> &Address {
        &self.address
    }

    /// The name, where the request itself does not say it.
    pub(super) fn header(&self) -> Option<&HeaderValue> {
        self.header.as_ref()
    }

    /// Where its connections go, if not where the request says.
    #[cfg(feature = "testing")]
    pub(super) fn authority(&self) -> Option<&str> {
        self.authority.as_deref()
    }

    /// Its own client of a generation, made where there is none yet; `None` where the common one will do.
    pub(super) fn client(
        &self,
        generation: u64,
        make: impl FnOnce(Toward) -> Result<reqwest::Client, String>,
    ) -> Result<Option<reqwest::Client>, String> {
        let Some(authority) = &self.authority else {
            return Ok(None);
        };
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let known = clients.iter().find(|(number, _)| *number == generation);
        if let Some((_, client)) = known {
            return Ok(Some(client.clone()));
        }
        let client = make(Toward(authority.clone()))?;
        if clients.len() >= GENERATIONS {
            // The oldest one; its connections close as they become idle.
            clients.sort_unstable_by_key(|(number, _)| *number);
            clients.remove(0);
        }
        clients.push((generation, client.clone()));
        Ok(Some(client))
    }
}

/// Finds every name at one address.
#[derive(Clone, Debug)]
pub(super) struct Toward(Box<str>);

impl Resolve for Toward {
    fn resolve(&self, _: Name) -> Resolving {
        let authority = self.0.clone();
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host(&*authority).await?.collect();
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}
