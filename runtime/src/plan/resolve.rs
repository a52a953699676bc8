//! Each subscriber with everything decided: options, overridden by the configuration, over the
//! broker's defaults.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{Faults, Section};
use crate::handling::{Bind, Handler, OnUnknown};
use crate::message::{CodecRef, Contract, TopicPattern, check_template};
use crate::messaging::settings::SubscriberSettings;
use crate::messaging::{
    Ack, BatchOptions, BreakerPolicy, DeliveryMode, Group, GroupOption, KafkaRetry,
    KafkaSubscription, OrderedBy, RabbitMqSubscription, Rate, RedisSubscription, RetryPolicy,
    Routes, Start, TIMEOUT_DEFAULT, TopologyMode,
};
use crate::registry::{Source, SubscriberDescriptor};

use super::admitted::{Admitted, no_such_subscriber};
use super::brokers::{Brokers, Entry, find_codec};
use super::problem::{Place, Problem};
use super::wiring::Wiring;
use super::{Findings, checks, configured, meant};

/// The batches of a batch subscriber that does not say how large they are.
const BATCH_DEFAULT: BatchOptions = BatchOptions::new(100, Duration::from_millis(100));

/// One subscriber on one topic. What is `None` was not said and follows the others of the same
/// subscription, or the default.
pub(super) struct Use {
    pub(super) descriptor: &'static SubscriberDescriptor,
    pub(super) name: Arc<str>,
    pub(super) place: Place,
    pub(super) broker: Arc<str>,
    pub(super) topic: TopicPattern,
    pub(super) group: Group,
    pub(super) contracts: Vec<&'static Contract>,
    pub(super) handler: Handler,
    pub(super) codec: CodecRef,
    pub(super) timeout: Duration,
    pub(super) retry: RetryPolicy,
    pub(super) on_unknown: Option<OnUnknown>,
    pub(super) ordered_by: Option<OrderedBy>,
    pub(super) ack: Ack,
    pub(super) start: Start,
    pub(super) batch: Option<BatchOptions>,
    pub(super) concurrency: Option<u32>,
    pub(super) prefetch: Option<u16>,
    pub(super) rate: Option<Rate>,
    pub(super) breaker: Option<BreakerPolicy>,
    pub(super) topology: Option<TopologyMode>,
    pub(super) dead_letter: Option<bool>,
    pub(super) kafka: KafkaSubscription,
    pub(super) rabbitmq: RabbitMqSubscription,
    pub(super) redis: RedisSubscription,
    pub(super) delivery: DeliveryMode,
}

/// What the configuration says of subscribers, by name.
pub(super) struct Overrides<'a>(BTreeMap<&'a str, (Section<'a>, SubscriberSettings)>);

/// Reads `[subscribers.NAME]`; a name that nobody has is a mistake.
pub(super) fn read_overrides<'a>(
    wiring: &'a Wiring,
    admitted: &Admitted,
    faults: &mut Faults,
) -> Overrides<'a> {
    let known = admitted.names();
    let asleep: Vec<_> = admitted
        .refused
        .iter()
        .flat_map(|refused| refused.subscribers.iter().copied())
        .collect();
    let all = wiring.config.section("subscribers");
    let mut overrides = BTreeMap::new();
    for (name, section) in all.entries(faults) {
        if !known.contains(&name) && !asleep.contains(&name) {
            let (message, help) = no_such_subscriber(name, &known);
            let fault = all.fault(name, message);
            faults.push(match help {
                Some(help) => fault.with_help(help),
                None => fault,
            });
            section.accept_all(faults);
            continue;
        }
        let settings = SubscriberSettings::read(&section, faults);
        overrides.insert(name, (section, settings));
    }
    Overrides(overrides)
}

/// Decides everything about every subscriber.
pub(super) fn resolve(
    wiring: &Wiring,
    admitted: &Admitted,
    brokers: &Brokers,
    routes: &Routes,
    overrides: &Overrides<'_>,
    instance: &Arc<str>,
    findings: &mut Findings,
) -> Vec<Use> {
    let nothing = SubscriberSettings::default();
    let own = admitted.subscribers.iter().map(|found| (*found, None));
    let assigned = admitted
        .assigned
        .iter()
        .map(|assigned| (assigned.descriptor, Some(assigned)));
    let mut uses = Vec::new();
    for (descriptor, assigned) in own.chain(assigned) {
        let (section, settings) = match overrides.0.get(descriptor.name()) {
            Some((section, settings)) => (Some(section), settings),
            None => (None, &nothing),
        };
        let resolver = Resolver {
            wiring,
            brokers,
            routes,
            instance,
            descriptor,
            section,
            settings,
        };
        checks::options(descriptor, settings, section, findings);
        let handler = resolver.bind(findings);
        let topics = match assigned {
            None => resolver.topics(),
            Some(assigned) => {
                if let Err(error) = check_template(&assigned.topic) {
                    let place = Place::Code(assigned.written);
                    let problem = Problem::new(place, descriptor.name(), error.to_string());
                    findings.problems.push(problem);
                    continue;
                }
                resolver.assigned(&assigned.topic)
            }
        };
        checks::segments(descriptor, &topics, findings);
        for (topic, contracts) in topics {
            let found = resolver.on(topic, contracts, handler.as_ref(), findings);
            uses.extend(found);
        }
    }
    uses
}

type Topics = Vec<(TopicPattern, Vec<&'static Contract>)>;

struct Resolver<'a> {
    wiring: &'a Wiring,
    brokers: &'a Brokers,
    routes: &'a Routes,
    instance: &'a Arc<str>,
    descriptor: &'static SubscriberDescriptor,
    section: Option<&'a Section<'a>>,
    settings: &'a SubscriberSettings,
}

impl<'a> Resolver<'a> {
    fn place(&self) -> Place {
        Place::Source(self.descriptor.location)
    }

    fn problem(&self, message: impl Into<String>) -> Problem {
        Problem::new(self.place(), self.descriptor.name(), message)
    }

    /// Resolves what the handler needs.
    fn bind(&self, findings: &mut Findings) -> Option<Handler> {
        let mut bind = Bind::new(&self.wiring.states);
        let handler = (self.descriptor.bind)(&mut bind);
        let faults = bind.into_faults();
        if handler.is_none() && faults.is_empty() {
            let problem = self.problem("an argument cannot be prepared, and nothing says why");
            findings.problems.push(problem);
        }
        for fault in faults {
            findings
                .problems
                .push(self.problem(fault.message).help(fault.help));
        }
        handler
    }

    /// The topics that it listens to by itself, each with the contracts it takes there.
    fn topics(&self) -> Topics {
        match self.descriptor.source {
            Source::Topic { topic, .. } => vec![(TopicPattern::new(topic), Vec::new())],
            Source::Contracts(contracts) => {
                let mut topics: Topics = Vec::new();
                for contract in contracts {
                    let topic = TopicPattern::new(contract.topic);
                    match topics.iter_mut().find(|(known, _)| *known == topic) {
                        Some((_, contracts)) => contracts.push(contract),
                        None => topics.push((topic, vec![contract])),
                    }
                }
                topics
            }
        }
    }

    fn assigned(&self, topic: &str) -> Topics {
        let contracts = match self.descriptor.source {
            Source::Topic { .. } => Vec::new(),
            Source::Contracts(contracts) => contracts.to_vec(),
        };
        vec![(TopicPattern::new(topic.to_owned()), contracts)]
    }

    /// The broker: what the configuration says, else the option, else the routes.
    fn broker(&self, topic: &TopicPattern, findings: &mut Findings) -> Option<&'a Entry> {
        let options = &self.descriptor.options;
        let named = self.settings.broker.as_deref().or(options.broker);
        let name = named.unwrap_or_else(|| self.routes.broker(topic.as_str()));
        let found = self.brokers.get(name);
        if found.is_none() {
            let known = self.brokers.names();
            let message = format!("broker `{name}` is not configured{}", configured(&known));
            let help = match (named, meant(name, &known)) {
                (_, Some(help)) => help,
                (Some(_), None) => format!("add `[brokers.{name}]` to the configuration"),
                (None, None) => {
                    format!("add `[brokers.{name}]`, or name the broker of `{topic}` in `[routes]`")
                }
            };
            match (self.section, &self.settings.broker) {
                (Some(section), Some(_)) => {
                    let fault = section.fault("broker", message);
                    findings.faults.push(fault.with_help(help));
                }
                _ => findings.problems.push(self.problem(message).help(help)),
            }
        }
        found
    }

    fn codec(
        &self,
        entry: &Entry,
        contracts: &[&'static Contract],
        findings: &mut Findings,
    ) -> Option<CodecRef> {
        let options = &self.descriptor.options;
        let codecs = &self.wiring.codecs;
        if let (Some(name), Some(section)) = (&self.settings.codec, self.section) {
            return match find_codec(codecs, name) {
                Ok(codec) => Some(codec),
                Err((message, help)) => {
                    let fault = section.fault("codec", message);
                    findings.faults.push(fault.with_help(help));
                    None
                }
            };
        }
        if let Some(name) = options.codec {
            return find_codec(codecs, name)
                .map_err(|(message, help)| {
                    findings.problems.push(self.problem(message).help(help));
                })
                .ok();
        }
        let mut chosen = entry.codec.clone();
        for contract in contracts.iter().rev() {
            if let Some(name) = contract.codec {
                match find_codec(codecs, name) {
                    Ok(codec) => chosen = Some(codec),
                    Err((message, help)) => {
                        let place = Place::Source(contract.location);
                        let problem = Problem::new(place, contract.name, message);
                        findings.problems.push(problem.help(help));
                    }
                }
            }
        }
        chosen
    }

    fn group(&self) -> Group {
        let service = self.descriptor.service.name;
        match (&self.settings.group, self.descriptor.options.group) {
            (Some(group), _) => Group::Named(group.as_str().into()),
            (None, GroupOption::Named(group)) => Group::Named(group.into()),
            (None, GroupOption::Service) => Group::Named(service.into()),
            (None, GroupOption::EachInstance) => Group::EachInstance {
                service: service.into(),
                instance: Arc::clone(self.instance),
                subscriber: self.descriptor.name().into(),
            },
        }
    }

    fn kafka(&self) -> KafkaSubscription {
        let own = self.descriptor.options.kafka.unwrap_or_default();
        let over = &self.settings.kafka;
        let text = |over: &Option<String>, own: Option<&str>| {
            over.clone().or_else(|| own.map(str::to_owned))
        };
        KafkaSubscription {
            group_id: text(&over.group_id, own.group_id),
            pattern: text(&over.pattern, own.pattern),
            partitions: over.partitions.or(own.partitions).map(i32::from),
            replication: over.replication.or(own.replication).map(i32::from),
            retry_in_lane: over.retry.or(own.retry) == Some(KafkaRetry::InLane),
        }
    }

    fn rabbitmq(&self) -> RabbitMqSubscription {
        let own = self.descriptor.options.rabbitmq.unwrap_or_default();
        let over = &self.settings.rabbitmq;
        let text = |over: &Option<String>, own: Option<&str>| {
            over.clone().or_else(|| own.map(str::to_owned))
        };
        RabbitMqSubscription {
            queue: text(&over.queue, own.queue),
            queue_kind: over.queue_kind.or(own.queue_kind),
            exchange: text(&over.exchange, own.exchange),
            exchange_kind: over.exchange_kind.or(own.exchange_kind),
            binding: text(&over.binding, own.binding),
            max_priority: over.max_priority.or(own.max_priority),
            arguments: owned(own.arguments),
            binding_arguments: owned(own.binding_arguments),
        }
    }

    fn redis(&self) -> RedisSubscription {
        let own = self.descriptor.options.redis.unwrap_or_default();
        let over = &self.settings.redis;
        let text = |over: &Option<String>, own: Option<&str>| {
            over.clone().or_else(|| own.map(str::to_owned))
        };
        RedisSubscription {
            stream: text(&over.stream, own.stream),
            group: text(&over.group, own.group),
        }
    }

    /// Everything about this subscriber on this topic.
    fn on(
        &self,
        topic: TopicPattern,
        contracts: Vec<&'static Contract>,
        handler: Option<&Handler>,
        findings: &mut Findings,
    ) -> Option<Use> {
        let (settings, options) = (self.settings, &self.descriptor.options);
        let entry = self.broker(&topic, findings)?;
        let codec = self.codec(entry, &contracts, findings);
        let retry = options.retry.unwrap_or_default();
        let retry = settings
            .retry
            .over(retry.over(entry.settings.retry.over(RetryPolicy::DEFAULT)));
        let on_unknown = match self.descriptor.source {
            Source::Topic { on_unknown, .. } => Some(on_unknown),
            Source::Contracts(_) => options.on_unknown,
        };
        let own_batch = self
            .descriptor
            .batch
            .then(|| options.batch.unwrap_or(BATCH_DEFAULT));
        let rabbitmq = options.rabbitmq.unwrap_or_default();
        let at_most_once = options.delivery == Some(DeliveryMode::AtMostOnce);
        let found = Use {
            descriptor: self.descriptor,
            name: self.descriptor.name().into(),
            place: self.place(),
            broker: Arc::clone(&entry.name),
            topic,
            group: self.group(),
            contracts,
            handler: handler?.clone(),
            codec: codec?,
            timeout: settings
                .timeout
                .or(options.timeout)
                .unwrap_or(TIMEOUT_DEFAULT),
            retry: if at_most_once {
                RetryPolicy::NONE
            } else {
                retry
            },
            on_unknown,
            ordered_by: options.ordered_by,
            ack: if at_most_once {
                Ack::OnReceive
            } else {
                options.ack.unwrap_or_default()
            },
            start: settings.start.or(options.start).unwrap_or_default(),
            batch: settings.batch(own_batch),
            concurrency: settings.concurrency.or(options.concurrency),
            prefetch: settings.prefetch.or(rabbitmq.prefetch),
            rate: settings.rate.or(options.rate),
            breaker: settings.breaker.over(options.breaker),
            topology: settings.topology.or(options.topology),
            dead_letter: if at_most_once {
                Some(false)
            } else {
                settings.dead_letter.or(options.dead_letter)
            },
            kafka: self.kafka(),
            rabbitmq: self.rabbitmq(),
            redis: self.redis(),
            delivery: options.delivery.unwrap_or_default(),
        };
        checks::against_broker(&found, entry, findings);
        checks::against_contracts(&found, entry, findings);
        Some(found)
    }
}

fn owned<T: Copy>(pairs: &[(&str, T)]) -> Vec<(String, T)> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), *value))
        .collect()
}
