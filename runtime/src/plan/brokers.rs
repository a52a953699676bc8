//! `[brokers.NAME]`: each section becomes a broker of its kind, made but not connected.

use std::sync::Arc;

use crate::config::{Fault, Faults, Section, redact_url, suggest::suggest};
use crate::message::{CodecRef, Codecs};
use crate::messaging::adapters::{ADAPTERS, Adapter};
use crate::messaging::settings::BrokerSettings;
use crate::messaging::{
    BrokerContext, Capabilities, MAIN_BROKER, MessageBroker, Subscription, Topology, TopologyMode,
};

use super::wiring::{BrokerFactory, Wiring};
use super::{Findings, PlannedBroker, Problem, problem::Place};

/// The names of codecs that are a feature away.
const CODEC_FEATURES: [&str; 3] = ["json", "msgpack", "protobuf"];

/// The brokers of a plan, also those that could not be made.
pub(super) struct Brokers(Vec<Entry>);

/// One broker by its name.
pub(super) struct Entry {
    pub(super) name: Arc<str>,
    pub(super) settings: BrokerSettings,
    pub(super) codec: Option<CodecRef>,
    url: Option<String>,
    /// `None` if something was wrong with it, which is noted.
    broker: Option<Arc<dyn MessageBroker>>,
}

impl Entry {
    /// What it can do, if it could be made.
    pub(super) fn capabilities(&self) -> Option<Capabilities> {
        self.broker.as_ref().map(|broker| broker.capabilities())
    }

    /// What has to exist on it for a subscription.
    pub(super) fn topology(&self, subscription: &Arc<Subscription>) -> Topology {
        let broker = self.broker.as_ref();
        broker.map_or_else(Topology::default, |broker| {
            broker.topology(&[Arc::clone(subscription)])
        })
    }

    pub(super) fn kind(&self) -> &str {
        self.broker.as_ref().map_or("", |broker| broker.kind())
    }
}

impl Brokers {
    pub(super) fn read(
        wiring: &Wiring,
        service: &Arc<str>,
        instance: &Arc<str>,
        prefix: Option<String>,
        findings: &mut Findings,
    ) -> Self {
        let mut context = BrokerContext::new("", Arc::clone(service), Arc::clone(instance));
        context.prefix = prefix.filter(|prefix| !prefix.is_empty()).map(Into::into);
        context.rng = wiring.rng.clone();
        context.clock = Arc::clone(&wiring.clock);
        context.metrics.clone_from(&wiring.metrics);
        context.read_only = wiring.read_only;

        let all = wiring.config.section("brokers");
        let mut sections = all.entries(&mut findings.faults);
        for (name, _) in &wiring.brokers {
            if !sections.iter().any(|(known, _)| *known == &**name) {
                sections.push((name, all.section(name, &mut findings.faults)));
            }
        }
        if sections.is_empty() {
            // Nothing is said about brokers: the embedded one, so that it runs as it is.
            sections.push((MAIN_BROKER, all.section(MAIN_BROKER, &mut findings.faults)));
        }
        sections.sort_by_key(|(name, _)| *name);
        let make = |(name, section): (&str, Section<'_>)| {
            context.name = name.into();
            let settings = BrokerSettings::read(&section, &mut findings.faults);
            let codec = match &settings.codec {
                None => wiring.codecs.default_codec().cloned(),
                Some(codec) => find_codec(&wiring.codecs, codec).map_or_else(
                    |(message, help)| {
                        let fault = section.fault("codec", message);
                        findings.faults.push(fault.with_help(help));
                        None
                    },
                    Some,
                ),
            };
            if codec.is_none() && settings.codec.is_none() {
                let problem = Problem::new(Place::App, "codec", "no codec is switched on");
                let help = "add the feature `json`, or `.codec(..)` to the app";
                findings.problems.push(problem.help(help));
            }
            let url = section
                .contains("url")
                // What stands there may be a reference to a secret, which is not read here.
                .then(|| section.string("url", &mut Faults::new()))
                .flatten();
            let given = wiring.brokers.iter().find(|(given, _)| &**given == name);
            let broker = match given {
                Some((_, broker)) => {
                    section.accept_all(&mut findings.faults);
                    Some(Arc::clone(broker))
                }
                None => make(
                    wiring,
                    &context,
                    &section,
                    url.as_deref(),
                    &mut findings.faults,
                ),
            };
            Entry {
                name: name.into(),
                settings,
                codec,
                url: url.as_deref().map(redact_url),
                broker,
            }
        };
        Self(sections.into_iter().map(make).collect())
    }

    pub(super) fn get(&self, name: &str) -> Option<&Entry> {
        self.0.iter().find(|entry| &*entry.name == name)
    }

    pub(super) fn names(&self) -> Vec<&str> {
        self.0.iter().map(|entry| &*entry.name).collect()
    }

    /// Those that could be made.
    pub(super) fn finish(self) -> Vec<PlannedBroker> {
        let made = self.0.into_iter().filter_map(|entry| {
            Some(PlannedBroker {
                broker: entry.broker?,
                url: entry.url,
                topology: entry.settings.topology.unwrap_or(TopologyMode::Apply),
                limits: entry.settings.limits,
                require_durable: entry.settings.require_durable,
                codec: entry.codec?,
            })
        });
        made.collect()
    }
}

/// The codec of this name, or what is wrong with it.
pub(super) fn find_codec(codecs: &Codecs, name: &str) -> Result<CodecRef, (String, String)> {
    if let Some(codec) = codecs.by_name(name) {
        return Ok(codec.clone());
    }
    if CODEC_FEATURES.contains(&name) {
        return Err((
            format!("the codec `{name}` is not switched on"),
            format!("add the feature `{name}` to `interline` in Cargo.toml"),
        ));
    }
    let known: Vec<_> = codecs.names().collect();
    let help = suggest(name, known.iter().copied()).map_or_else(
        || format!("codecs: {}", known.join(", ")),
        |meant| format!("did you mean `{meant}`?"),
    );
    Err((format!("there is no codec `{name}`"), help))
}

/// Makes the broker of a section. `None` after pushing what is wrong.
pub(super) fn make(
    wiring: &Wiring,
    context: &BrokerContext,
    section: &Section<'_>,
    url: Option<&str>,
    faults: &mut Faults,
) -> Option<Arc<dyn MessageBroker>> {
    let found = match choose(wiring, section, url, faults) {
        Ok(found) => found,
        Err(fault) => {
            section.accept_all(faults);
            faults.push(*fault);
            return None;
        }
    };
    let before = faults.len();
    let broker = match found {
        Chosen::BuiltIn(adapter) => match adapter.connect {
            Some(connect) => connect(context, section, faults),
            None => {
                section.accept_all(faults);
                let key = if section.contains("kind") {
                    "kind"
                } else {
                    "url"
                };
                let message = format!(
                    "brokers of kind `{}` are not switched on in this program",
                    adapter.kind
                );
                let help = format!(
                    "add the feature `{}` to `interline` in Cargo.toml",
                    adapter.feature
                );
                faults.push(section.fault(key, message).with_help(help));
                None
            }
        },
        Chosen::Own(factory) => factory(context, section, faults),
    };
    if broker.is_none() && faults.len() == before {
        faults.push(section.fault("kind", "the broker could not be made, and nothing says why"));
    }
    broker
}

enum Chosen<'a> {
    BuiltIn(&'static Adapter),
    Own(&'a BrokerFactory),
}

/// Chooses the kind: what `kind` says, else what the scheme of `url` says, else the embedded one.
fn choose<'a>(
    wiring: &'a Wiring,
    section: &Section<'_>,
    url: Option<&str>,
    faults: &mut Faults,
) -> Result<Chosen<'a>, Box<Fault>> {
    let kinds = || {
        let own = wiring.kinds.iter().map(|(kind, _)| &**kind);
        ADAPTERS.iter().map(|adapter| adapter.kind).chain(own)
    };
    let own = |name: &str| {
        let found = wiring.kinds.iter().find(|(kind, _)| &**kind == name);
        found.map(|(_, factory)| Chosen::Own(factory))
    };
    let unknown = |key: &str, message: String, wanted: &str, known: Vec<&str>| {
        let fault = section.fault(key, message);
        Box::new(match suggest(wanted, known.iter().copied()) {
            Some(meant) => fault.with_help(format!("did you mean `{meant}`?")),
            None => fault.with_help(format!("known: {}", known.join(", "))),
        })
    };
    let kind = section.string("kind", faults);
    // Asked for here so that it is known; an adapter without an address never asks.
    section.secret("url", faults);
    if section.contains("kind") {
        let Some(kind) = kind else {
            return Err(Box::new(
                section.fault("kind", "is not the name of a kind of broker"),
            ));
        };
        let built_in = ADAPTERS.iter().find(|adapter| adapter.kind == kind);
        return own(&kind).or(built_in.map(Chosen::BuiltIn)).ok_or_else(|| {
            let message = format!("there is no kind of broker `{kind}`");
            unknown("kind", message, &kind, kinds().collect())
        });
    }
    let Some(url) = url else {
        if section.contains("url") {
            let fault = section.fault(
                "kind",
                "is missing; the URL is a secret that is not read yet",
            );
            return Err(Box::new(
                fault.with_help("write for example `kind = \"rabbitmq\"`"),
            ));
        }
        if section.is_present() {
            // A forgotten URL must not end in memory.
            let fault = section.fault("url", "is missing, and so is `kind`");
            return Err(Box::new(
                fault.with_help("write `url = \"amqp://..\"`, or `kind = \"memory\"`"),
            ));
        }
        let memory = ADAPTERS.iter().find(|adapter| adapter.kind == "memory");
        return match memory.filter(|adapter| adapter.connect.is_some()) {
            Some(adapter) => Ok(Chosen::BuiltIn(adapter)),
            None => {
                let fault = section.fault("url", "is missing: no broker is configured");
                Err(Box::new(fault.with_help(
                    "write `[brokers.main]` with `url = \"amqp://..\"`, or add the feature \
                     `memory` to `interline` in Cargo.toml",
                )))
            }
        };
    };
    let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme);
    let built_in = ADAPTERS
        .iter()
        .find(|adapter| adapter.schemes.contains(&scheme));
    own(scheme)
        .or(built_in.map(Chosen::BuiltIn))
        .ok_or_else(|| {
            let schemes = ADAPTERS
                .iter()
                .flat_map(|adapter| adapter.schemes.iter().copied());
            let own = wiring.kinds.iter().map(|(kind, _)| &**kind);
            let message = format!("no kind of broker has URLs that begin with `{scheme}:`");
            unknown("url", message, scheme, schemes.chain(own).collect())
        })
}
