//! Questions to the DNS, and what their answers say about endpoints.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use hickory_resolver::TokioResolver;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};

use crate::discovery::{Endpoint, EndpointSet};

use super::Records;

/// The endpoints, and for how many seconds the answer lives if that was said.
type Answer = Result<(EndpointSet, Option<u32>), String>;

/// Asks for one service again and again.
pub(super) struct Asker {
    name: String,
    records: Records,
    scheme: String,
    known: Known,
}

/// The addresses of each name and family at its last answer. Where one of the two families fails,
/// what it said last is taken: a failure must not make the set smaller.
type Known = BTreeMap<(Name, RecordType), Vec<IpAddr>>;

/// What a question found.
struct Found {
    records: Vec<Record>,
    ttl: Option<u32>,
}

impl Asker {
    pub(super) fn new(name: String, records: Records, scheme: String) -> Self {
        Self {
            name,
            records,
            scheme,
            known: Known::new(),
        }
    }

    /// All endpoints that there are now; or why nobody knows.
    pub(super) async fn ask(&mut self, resolver: &TokioResolver) -> Answer {
        let name = Name::from_utf8(&self.name)
            .map_err(|error| format!("`{}` is no name of the DNS: {error}", self.name))?;
        match self.records {
            Records::Address { port } => {
                let (addresses, ttl) = self.addresses(resolver, &name).await?;
                let endpoints = addresses.into_iter().map(|ip| self.endpoint(ip, port));
                Ok((endpoints.collect::<Result<_, String>>()?, ttl))
            }
            Records::Srv => self.services(resolver, &name).await,
        }
    }

    async fn services(&mut self, resolver: &TokioResolver, name: &Name) -> Answer {
        let found = lookup(resolver, name, RecordType::SRV).await?;
        let services = found
            .records
            .iter()
            .filter_map(|record| match &record.data {
                // A single dot says that the service is decidedly not there.
                RData::SRV(srv) if !srv.target.is_root() => Some(srv),
                _ => None,
            });
        let mut by_priority: BTreeMap<u16, Vec<_>> = BTreeMap::new();
        for srv in services {
            by_priority.entry(srv.priority).or_default().push(srv);
        }
        let mut ttl = found.ttl;
        // Those that nobody asks for any more are forgotten.
        let mut known = std::mem::take(&mut self.known);
        for services in by_priority.values() {
            let mut endpoints = Vec::new();
            for srv in services {
                for family in [RecordType::A, RecordType::AAAA] {
                    let key = (srv.target.clone(), family);
                    if let Some(addresses) = known.remove(&key) {
                        self.known.insert(key, addresses);
                    }
                }
                let (addresses, of_target) = self.addresses(resolver, &srv.target).await?;
                ttl = least(ttl, of_target);
                for ip in addresses {
                    endpoints.push(self.endpoint(ip, srv.port)?);
                }
            }
            // The next priority is for when there is nothing of this one.
            if !endpoints.is_empty() {
                return Ok((endpoints.into_iter().collect(), ttl));
            }
        }
        Ok((EndpointSet::default(), ttl))
    }

    /// The addresses of a name, of both families.
    async fn addresses(
        &mut self,
        resolver: &TokioResolver,
        name: &Name,
    ) -> Result<(Vec<IpAddr>, Option<u32>), String> {
        let (four, six) = tokio::join!(
            lookup(resolver, name, RecordType::A),
            lookup(resolver, name, RecordType::AAAA),
        );
        if let (Err(why), Err(_)) = (&four, &six) {
            return Err(why.clone());
        }
        let (mut all, mut ttl) = (Vec::new(), None);
        for (family, found) in [(RecordType::A, four), (RecordType::AAAA, six)] {
            let key = (name.clone(), family);
            match found {
                Ok(found) => {
                    let addresses = found.records.iter().filter_map(|record| match record.data {
                        RData::A(address) => Some(IpAddr::from(*address)),
                        RData::AAAA(address) => Some(IpAddr::from(*address)),
                        _ => None,
                    });
                    let addresses: Vec<IpAddr> = addresses.collect();
                    // A family that has no addresses says nothing about how long the other one lives.
                    if !addresses.is_empty() || ttl.is_none() {
                        ttl = if all.is_empty() {
                            found.ttl
                        } else {
                            least(ttl, found.ttl)
                        };
                    }
                    all.extend_from_slice(&addresses);
                    self.known.insert(key, addresses);
                }
                Err(_) => all.extend(self.known.get(&key).into_iter().flatten()),
            }
        }
        Ok((all, ttl))
    }

    fn endpoint(&self, ip: IpAddr, port: u16) -> Result<Endpoint, String> {
        let url = format!("{}://{}", self.scheme, SocketAddr::new(ip, port));
        Endpoint::parse(&url).map_err(|why| format!("`{url}` {why}"))
    }
}

fn least(one: Option<u32>, other: Option<u32>) -> Option<u32> {
    one.into_iter().chain(other).min()
}

/// Asks one question. That there is nothing is an answer; the error is in words.
async fn lookup(resolver: &TokioResolver, name: &Name, kind: RecordType) -> Result<Found, String> {
    match resolver.lookup(name.clone(), kind).await {
        Ok(lookup) => {
            let answers = lookup.answers();
            // Aliases on the way live no longer than what they lead to.
            let ttl = answers.iter().map(|record| record.ttl).min();
            let records = answers.iter();
            let records = records.filter(|record| record.record_type() == kind);
            Ok(Found {
                records: records.cloned().collect(),
                ttl,
            })
        }
        Err(NetError::Dns(DnsError::NoRecordsFound(none)))
            if matches!(
                none.response_code,
                ResponseCode::NXDomain | ResponseCode::NoError
            ) =>
        {
            Ok(Found {
                records: Vec::new(),
                ttl: none.negative_ttl,
            })
        }
        Err(error) => Err(format!("{name} {kind}: {error}")),
    }
}
