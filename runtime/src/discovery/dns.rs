//! Endpoints that stand in the DNS.

mod ask;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::Name;
use tokio::time::{sleep, timeout};

use crate::clock::Rng;
use crate::config::{Faults, Section};

use super::{Discovery, Endpoint, Feed, Following, Query};

use ask::Asker;

/// What stands for the service in the name.
const SERVICE: &str = "{service}";
/// How often one question is asked again before it counts as failed.
const ATTEMPTS: usize = 2;

/// The DNS: address records with a port that is known, or SRV records.
///
/// | key of `[discovery.NAME]` | default | |
/// |---|---|---|
/// | `records` | `address` | A and AAAA, or `srv` |
/// | `port` | must be given with `address` | the port of every instance |
/// | `scheme` | `http` | the scheme of every instance |
/// | `name` | `{service}` | what is asked for; for SRV for example `_http._tcp.{service}.internal` |
/// | `servers` | the system's | the addresses of DNS servers |
/// | `timeout` | `2s` | of one question to one server |
/// | `ttl_min`, `ttl_max` | `1s`, `30s` | an answer is asked for again when its time to live is over: not sooner and not later; that there is nothing, after `ttl_min` |
///
/// That a name does not exist, or has no such records, is an answer: there is no instance. A server that
/// fails or does not answer is none, and what was said last stays; so it is where one family fails and the
/// other one has no address. The weights of SRV records are those of the instances, for the ways to balance
/// that heed them; instances of a later priority stand by for the time when none of the earlier ones can be
/// called. Instances are called by the name that was asked for, with SRV by the target: that is what stands
/// in requests, and what the certificate has to be for.
pub(super) struct DnsBackend(Arc<Settings>);

#[derive(Debug)]
struct Settings {
    records: Records,
    scheme: String,
    name: String,
    servers: Vec<SocketAddr>,
    timeout: Duration,
    ttl_min: Duration,
    ttl_max: Duration,
    rng: Rng,
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
enum Records {
    Address { port: u16 },
    Srv,
}

impl DnsBackend {
    /// `None` after pushing what is wrong.
    pub(super) fn read(section: &Section<'_>, rng: &Rng, faults: &mut Faults) -> Option<Self> {
        let before = faults.len();
        let srv = section.choice("records", &["address", "srv"], faults) == Some("srv");
        let port = section.integer("port", 1..=u16::MAX, faults);
        if srv && section.contains("port") {
            let fault = section.fault("port", "has no effect: SRV records say the port");
            faults.push(fault.with_help("leave it out, or ask for `records = \"address\"`"));
        } else if !srv && port.is_none() && faults.len() == before {
            let fault = section.fault("port", "is missing: address records say none");
            let help = "write for example `port = 8080`, or ask for `records = \"srv\"`";
            faults.push(fault.with_help(help));
        }
        let scheme = section.string("scheme", faults);
        let scheme = scheme.unwrap_or_else(|| "http".to_owned());
        if let Err(why) = Endpoint::parse(&format!("{scheme}://x")) {
            faults.push(section.fault("scheme", format!("`{scheme}://..` {why}")));
        }
        let name = section.string("name", faults);
        let name = name.unwrap_or_else(|| SERVICE.to_owned());
        if !name.contains(SERVICE) {
            let fault = section.fault("name", format!("does not say where `{SERVICE}` stands"));
            faults.push(fault.with_help("write for example `name = \"{service}.internal\"`"));
        } else if let Err(error) = Name::from_utf8(name.replace(SERVICE, "x")) {
            faults.push(section.fault("name", format!("is no name of the DNS: {error}")));
        }
        let servers = section.strings("servers", faults).unwrap_or_default();
        if section.contains("servers") && servers.is_empty() && faults.len() == before {
            let fault = section.fault("servers", "is empty");
            faults.push(fault.with_help("name one, or leave it out for those of the system"));
        }
        let servers = servers.iter().filter_map(|text| {
            let server = server(text);
            if server.is_none() {
                let fault = section.fault("servers", format!("`{text}` is no address"));
                faults.push(fault.with_help("write for example `servers = [\"10.0.0.2:53\"]`"));
            }
            server
        });
        let servers = servers.collect();
        let limits = Duration::from_millis(10)..=Duration::from_secs(86_400);
        let mut duration = |key, default| {
            let given = section.duration(key, limits.clone(), faults);
            given.unwrap_or(Duration::from_secs(default))
        };
        let (timeout, ttl_min) = (duration("timeout", 2), duration("ttl_min", 1));
        let ttl_max = duration("ttl_max", 30);
        if ttl_min > ttl_max {
            faults.push(section.fault("ttl_min", "is more than `ttl_max`"));
        }
        let records = match port {
            Some(port) if !srv => Records::Address { port },
            _ => Records::Srv,
        };
        let settings = Settings {
            records,
            scheme,
            name,
            servers,
            timeout,
            ttl_min,
            ttl_max,
            rng: rng.clone(),
        };
        (faults.len() == before).then(|| Self(Arc::new(settings)))
    }
}

/// `10.0.0.2`, `10.0.0.2:53`, `::1` or `[::1]:53`.
fn server(text: &str) -> Option<SocketAddr> {
    let with_port = text.parse::<SocketAddr>();
    with_port.ok().or_else(|| {
        let address = text.parse::<IpAddr>().ok()?;
        Some(SocketAddr::new(address, 53))
    })
}

impl Settings {
    /// Makes what asks the servers. Those of the system are looked up anew each time.
    fn resolver(&self) -> Result<TokioResolver, String> {
        let servers = self.servers.iter().map(|address| {
            let mut server = NameServerConfig::udp_and_tcp(address.ip());
            server.connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()]
                .map(|mut connection| {
                    connection.port = address.port();
                    connection
                })
                .into();
            server
        });
        let mut builder = if self.servers.is_empty() {
            TokioResolver::builder_tokio()
                .map_err(|error| format!("the system's DNS servers cannot be found: {error}"))?
        } else {
            let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect::<Vec<_>>());
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        };
        let options: &mut ResolverOpts = builder.options_mut();
        options.timeout = self.timeout;
        options.attempts = ATTEMPTS;
        // What is kept, and for how long, is decided here and not once more below.
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        builder.build().map_err(|error| error.to_string())
    }

    /// How long to wait after an answer that lives for `ttl`: a little less, so that the instances of a
    /// program do not all ask at once.
    fn next(&self, ttl: Option<u32>) -> Duration {
        let ttl = ttl.map_or(self.ttl_min, |seconds| Duration::from_secs(seconds.into()));
        let spread = 1.0 - 0.1 * self.rng.unit();
        ttl.clamp(self.ttl_min, self.ttl_max).mul_f64(spread)
    }

    /// How long to wait after so many failures.
    fn pause(&self, failures: u32) -> Duration {
        let doubled = self.ttl_min * (1 << failures.min(16));
        let longest = doubled.min(self.ttl_max);
        // Between half of it and all of it.
        longest.mul_f64(0.5 + 0.5 * self.rng.unit())
    }
}

impl Discovery for DnsBackend {
    fn kind(&self) -> &'static str {
        "dns"
    }

    fn follow(&self, query: Query, feed: Feed) -> Following {
        let settings = Arc::clone(&self.0);
        Box::pin(async move {
            let name = settings.name.replace(SERVICE, &query.service);
            let mut asker = Asker::new(name, settings.records, settings.scheme.clone());
            let mut resolver = None;
            let mut failures = 0;
            // Several questions, each to several servers several times.
            let limit = settings.timeout * 16;
            loop {
                let asking = feed.ask();
                let answer = async {
                    let resolver = match &mut resolver {
                        Some(resolver) => resolver,
                        none => none.insert(settings.resolver()?),
                    };
                    asker.ask(resolver).await
                };
                let answer = timeout(limit, answer).await;
                let wait = match answer.unwrap_or_else(|_| Err("no answer in time".to_owned())) {
                    Ok((endpoints, ttl)) => {
                        failures = 0;
                        asking.answered(endpoints);
                        settings.next(ttl)
                    }
                    Err(why) => {
                        // The next try begins from nothing: with the servers that the system has then.
                        resolver = None;
                        let wait = settings.pause(failures);
                        failures += 1;
                        asking.failed(why);
                        wait
                    }
                };
                sleep(wait).await;
            }
        })
    }
}

#[cfg(test)]
mod tests;
