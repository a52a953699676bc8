//! Questions to the DNS, and what their answers say about endpoints.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::time::{Instant, timeout_at};

use crate::discovery::endpoint::WEIGHT_MAX;
use crate::discovery::{Endpoint, EndpointSet};

use super::Records;

/// How long the targets that stand by may take for their addresses, all together.
const STANDBY_MAX: Duration = Duration::from_secs(1);

/// The endpoints, and for how many seconds the answer lives if that was said. That there is nothing lives for
/// no time: who looks for a service waits for the first instance.
type Answer = Result<(EndpointSet, Option<u32>), String>;

/// Asks for one service again and again.
pub(super) struct Asker {
    name: String,
    records: Records,
    scheme: String,
    pub(super) known: Known,
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
                let endpoints = addresses.into_iter();
                let endpoints = endpoints.map(|ip| self.endpoint(ip, port, &name));
                let endpoints = endpoints.collect::<Result<EndpointSet, String>>()?;
                let ttl = ttl.filter(|_| !endpoints.is_empty());
                Ok((endpoints, ttl))
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
        let mut asked = BTreeSet::new();
        let mut endpoints = Vec::new();
        let first = by_priority.keys().next().copied();
        // For all that stand by together: whoever answers nothing there must not keep the others unknown.
        let mut patience = None;
        for (priority, services) in &by_priority {
            // Weights are for choosing within a priority.
            let heaviest = services.iter().map(|srv| srv.weight).max();
            for srv in services {
                asked.insert(srv.target.clone());
                let stands_by = Some(*priority) != first && !endpoints.is_empty();
                let answer = if stands_by {
                    let until = *patience.get_or_insert_with(|| Instant::now() + STANDBY_MAX);
                    timeout_at(until, self.addresses(resolver, &srv.target))
                        .await
                        .unwrap_or_else(|_| Err("no answer in time".to_owned()))
                } else {
                    self.addresses(resolver, &srv.target).await
                };
                let (addresses, of_target) = match answer {
                    Ok(answer) => answer,
                    // A target that stands by is no reason to do without what is known of the others.
                    Err(_)
                        if !endpoints.is_empty()
                            && (stands_by || !self.known(&srv.target).is_empty()) =>
                    {
                        (self.known(&srv.target), None)
                    }
                    Err(why) => return Err(why),
                };
                ttl = least(ttl, of_target);
                for ip in addresses {
                    let endpoint = self
                        .endpoint(ip, srv.port, &srv.target)?
                        .with_priority(*priority);
                    let weight = weight(srv.weight, heaviest.unwrap_or_default());
                    endpoints.push(endpoint.with_weight(weight));
                }
            }
        }
        // Only now, when everything was answered: those that nobody asks for any more are forgotten.
        self.known.retain(|(name, _), _| asked.contains(name));
        let ttl = ttl.filter(|_| !endpoints.is_empty());
        Ok((endpoints.into_iter().collect(), ttl))
    }

    /// The addresses of a name at its last answers.
    fn known(&self, name: &Name) -> Vec<IpAddr> {
        let families = [RecordType::A, RecordType::AAAA];
        let known = families.map(|family| self.known.get(&(name.clone(), family)));
        known.into_iter().flatten().flatten().copied().collect()
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
        let (mut all, mut ttl, mut none_for, mut failed) = (Vec::new(), None, None, None);
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
                    if addresses.is_empty() {
                        none_for = least(none_for, found.ttl);
                    } else {
                        ttl = least(ttl, found.ttl);
                    }
                    all.extend_from_slice(&addresses);
                    self.known.insert(key, addresses);
                }
                Err(why) => {
                    all.extend(self.known.get(&key).into_iter().flatten());
                    failed = Some(why);
                }
            }
        }
        match failed {
            // The other family may be where the addresses are.
            Some(why) if all.is_empty() => Err(why),
            Some(_) => Ok((all, ttl)),
            None if all.is_empty() => Ok((all, none_for)),
            None => Ok((all, ttl)),
        }
    }

    /// At this address, by the name that was asked for: a certificate is for that.
    fn endpoint(&self, ip: IpAddr, port: u16, name: &Name) -> Result<Endpoint, String> {
        let url = format!("{}://{}", self.scheme, SocketAddr::new(ip, port));
        let endpoint = Endpoint::parse(&url).map_err(|why| format!("`{url}` {why}"))?;
        let name = name.to_ascii();
        let named = endpoint.with_host(&name);
        named.map_err(|why| format!("`{name}` {why}"))
    }
}

/// The weight of an SRV record as that of an endpoint, where the heaviest one weighs so much. One of no
/// weight gets a little all the same.
fn weight(weight: u16, heaviest: u16) -> u32 {
    let (weight, heaviest) = (u32::from(weight), u32::from(heaviest));
    if heaviest <= WEIGHT_MAX {
        return weight.max(1);
    }
    (weight * WEIGHT_MAX).div_ceil(heaviest).max(1)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_keep_their_proportions() {
        assert_eq!(weight(0, 0), 1);
        assert_eq!((weight(0, 5), weight(1, 5), weight(5, 5)), (1, 1, 5));
        assert_eq!((weight(50, 100), weight(100, 100)), (50, 100));
        let scaled = [0, 1, 500, 1_000].map(|one| weight(one, 1_000));
        assert_eq!(scaled, [1, 1, 50, 100]);
        assert_eq!(weight(u16::MAX, u16::MAX), WEIGHT_MAX);
    }
}
