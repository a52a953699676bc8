//! The same app on brokers of another kind: what is refused there, what is ignored, what is done in
//! another way.

use std::fmt;
use std::sync::Arc;

use crate::config::{Config, Faults, suggest::suggest};
use crate::messaging::adapters::{ADAPTERS, Adapter};
use crate::messaging::{
    BrokerContext, Capabilities, DeliveryMode, Group, KafkaSubscription, MessageBroker, OrderedBy,
    PlannedHandler, PlannedSubscription, RabbitMqSubscription, RedisSubscription,
};

use super::brokers::make;
use super::problem::{Place, PlanError, Problem, write_problems};
use super::{Plan, PlannedBroker, Wiring};

/// What changes for an app if every one of its brokers is of another kind; see
/// [`runtime::check_as`](crate::runtime::check_as). `Display` is the whole text.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct KindReport {
    /// The service's name.
    pub service: String,
    /// The other kind.
    pub kind: String,
    /// What keeps the app from starting there, with what to write instead.
    pub refused: Vec<Problem>,
    /// What is odd there and can run.
    pub warnings: Vec<Problem>,
    /// What is done in another way there.
    pub changes: Vec<Change>,
}

/// One thing that another kind of broker does in another way.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// Whom it concerns: ``broker `main` `` or ``handler `charge` ``.
    pub subject: String,
    /// What it is about: `dead letters`.
    pub what: &'static str,
    /// How it is now.
    pub now: String,
    /// How it is on the other kind.
    pub then: String,
}

impl KindReport {
    /// Whether the app starts there as it is written.
    #[must_use]
    pub fn can_start(&self) -> bool {
        self.refused.is_empty()
    }

    /// Compares an app with itself on brokers of another kind.
    pub(crate) fn of(wiring: &Wiring, kind: &str) -> Result<Self, PlanError> {
        let mut wiring = wiring.clone();
        wiring.read_only = true;
        let plan = Plan::build(&wiring)?;
        wiring.instance = Some(Arc::clone(&plan.instance));
        let mut changes = Vec::new();
        let mut others = Vec::new();
        for planned in &plan.brokers {
            let name = planned.broker.name();
            let other = other(&wiring, &plan, name, kind)?;
            if planned.broker.kind() != other.kind() {
                of_broker(planned, &*other, &mut changes);
                let own = plan.subscriptions.iter().filter(|own| own.broker == *name);
                for subscription in own {
                    of_subscription(subscription, planned, &*other, &mut changes);
                }
            }
            others.push((Arc::clone(name), other));
        }
        wiring.brokers = others;
        let (refused, warnings) = match Plan::build(&wiring) {
            Ok(other) => (Vec::new(), news(&plan, other.warnings)),
            Err(error) => (error.problems().to_vec(), Vec::new()),
        };
        Ok(Self {
            service: plan.service.to_string(),
            kind: kind.to_owned(),
            refused,
            warnings,
            changes,
        })
    }
}

/// The warnings that the app does not have as it is.
fn news(plan: &Plan, warnings: Vec<Problem>) -> Vec<Problem> {
    let kinds: Vec<_> = plan
        .brokers
        .iter()
        .map(|planned| {
            let name = planned.broker.name();
            (format!("broker `{name}` ("), planned.broker.kind())
        })
        .collect();
    // The same warning about another kind is no news.
    let is_known = |warning: &Problem| {
        plan.warnings.iter().any(|known| {
            let same = || {
                kinds.iter().any(|(broker, kind)| {
                    let rest = warning.message.split_once(broker.as_str());
                    rest.and_then(|(before, rest)| Some((before, rest.split_once(')')?.1)))
                        .is_some_and(|(before, after)| {
                            known.message == format!("{before}{broker}{kind}){after}")
                        })
                })
            };
            known.place == warning.place
                && known.subject == warning.subject
                && (known.message == warning.message || same())
        })
    };
    let warnings = warnings.into_iter();
    warnings.filter(|warning| !is_known(warning)).collect()
}

/// A broker of this kind with its defaults, in the place of the one called `name`.
fn other(
    wiring: &Wiring,
    plan: &Plan,
    name: &Arc<str>,
    kind: &str,
) -> Result<Arc<dyn MessageBroker>, PlanError> {
    let service = Some(plan.service.to_string());
    let own: Vec<&str> = wiring.kinds.iter().map(|(kind, _)| &**kind).collect();
    let adapter = built_in(kind);
    if adapter.is_none() && !own.contains(&kind) {
        let known = ADAPTERS.iter().map(|adapter| adapter.kind).chain(own);
        let known: Vec<&str> = known.collect();
        let message = format!("there is no kind of broker `{kind}`");
        let help = match suggest(kind, known.iter().copied()) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("known: {}", known.join(", ")),
        };
        let problem = Problem::new(Place::App, "check_as", message).help(help);
        return Err(PlanError::new(service, vec![problem]));
    }
    // One without a scheme of its own is named beside the URL of a server.
    let scheme = adapter.map_or(kind, |adapter| {
        adapter.schemes.first().copied().unwrap_or("redis")
    });
    let url = format!("{scheme}://localhost");
    let config = Config::new()
        .with("brokers.other.kind", kind)
        .with("brokers.other.url", url.as_str());
    let section = config.section("brokers.other");
    let mut context = BrokerContext::new(
        Arc::clone(name),
        Arc::clone(&plan.service),
        Arc::clone(&plan.instance),
    );
    context.read_only = true;
    let mut faults = Faults::new();
    make(wiring, &context, &section, Some(&url), &mut faults).ok_or_else(|| {
        let problems = faults.iter().map(|fault| Problem {
            place: Place::App,
            subject: "check_as".to_owned(),
            ..Problem::from(fault)
        });
        PlanError::new(service, problems.collect())
    })
}

fn built_in(kind: &str) -> Option<&'static Adapter> {
    ADAPTERS.iter().find(|adapter| adapter.kind == kind)
}

/// What the two say of themselves.
fn of_broker(planned: &PlannedBroker, other: &dyn MessageBroker, changes: &mut Vec<Change>) {
    let subject = format!("broker `{}`", planned.broker.name());
    let (now, then) = (planned.broker.capabilities(), other.capabilities());
    changes.push(Change {
        subject: subject.clone(),
        what: "kind",
        now: planned.broker.kind().to_owned(),
        then: other.kind().to_owned(),
    });
    let mut compare = |what, say: &dyn Fn(&Capabilities) -> String| {
        push(changes, &subject, what, say(&now), say(&then));
    };
    compare("delivery", &|able| {
        chosen(able.at_most_once_only, "at most once", "at least once")
    });
    compare("messages", &|able| {
        chosen(
            able.durable,
            "outlive the process",
            "are lost with the process",
        )
    });
    compare("a publish that nobody listens to", &|able| {
        chosen(able.reports_unroutable, "fails", "succeeds")
    });
    compare("requests and replies", &|able| {
        chosen(able.replies, "yes", "refused")
    });
    compare("messages for later", &|able| match able.scheduling {
        Some(scheduling) => scheduling.to_string(),
        None => "refused".to_owned(),
    });
    compare("priorities", &|able| {
        chosen(able.priorities, "kept", "ignored")
    });
    compare("time to live", &|able| {
        chosen(able.message_ttl, "kept", "ignored")
    });
}

/// What is done in another way for the handlers of a subscription.
fn of_subscription(
    planned: &PlannedSubscription,
    broker: &PlannedBroker,
    other: &dyn MessageBroker,
    changes: &mut Vec<Change>,
) {
    let subscription = &planned.subscription;
    let (now, then) = (broker.broker.kind(), other.kind());
    let is_lossy = other.capabilities().at_most_once_only;
    let own = [
        (
            "rabbitmq",
            "`rabbitmq(..)`",
            subscription.rabbitmq != RabbitMqSubscription::default(),
        ),
        (
            "kafka",
            "`kafka(..)`",
            subscription.kafka != KafkaSubscription::default(),
        ),
        (
            "redis",
            "`redis(..)`",
            subscription.redis != RedisSubscription::default(),
        ),
    ];
    for handler in &planned.handlers {
        let subject = format!("handler `{}`", handler.name);
        for (kind, what, is_set) in own {
            if is_set {
                // Both kinds of Redis read its group of options.
                let say = |on: &str| chosen(on.starts_with(kind), "applies", "does not apply");
                push(changes, &subject, what, say(now), say(then));
            }
        }
        let is_shared = matches!(subscription.group, Group::Named(_));
        if is_lossy && is_shared {
            let now = "one instance gets each message".to_owned();
            let then = "every instance gets every message".to_owned();
            push(changes, &subject, "group", now, then);
        }
        // A kind of the program's own says nothing about how it does things.
        let (Some(now), Some(then)) = (built_in(now), built_in(then)) else {
            continue;
        };
        let (now, then) = (now.ways, then.ways);
        if subscription.ordered_by == Some(OrderedBy::Key) {
            let (now, then) = (now.order.to_owned(), then.order.to_owned());
            push(changes, &subject, "order by key", now, then);
        }
        if subscription.delivery == DeliveryMode::AtMostOnce {
            continue;
        }
        // Where order is kept a retry waits in its lane, in the process.
        if subscription.ordered_by.is_none() && waits_on_broker(handler) {
            let (now, then) = (now.retries.to_owned(), then.retries.to_owned());
            push(changes, &subject, "retries wait", now, then);
        }
        if subscription.dead_letter {
            let (now, then) = (now.dead_letters.to_owned(), then.dead_letters.to_owned());
            push(changes, &subject, "dead letters", now, then);
        }
    }
}

/// Whether a retry waits so long that the broker holds the message.
fn waits_on_broker(handler: &PlannedHandler) -> bool {
    let policy = &handler.retry;
    policy.attempts > 1 && policy.wait_before(policy.attempts).as_secs() >= 1
}

fn chosen(holds: bool, yes: &str, no: &str) -> String {
    if holds { yes } else { no }.to_owned()
}

fn push(changes: &mut Vec<Change>, subject: &str, what: &'static str, now: String, then: String) {
    if now != then {
        changes.push(Change {
            subject: subject.to_owned(),
            what,
            now,
            then,
        });
    }
}

impl fmt::Display for KindReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "service `{}` as `{}`: ", self.service, self.kind)?;
        match self.refused.len() {
            0 => f.write_str("it starts")?,
            1 => f.write_str("it does not start, 1 thing is refused")?,
            count => write!(f, "it does not start, {count} things are refused")?,
        }
        for (title, problems) in [("refused", &self.refused), ("warnings", &self.warnings)] {
            if !problems.is_empty() {
                write!(f, "\n{title}")?;
                write_problems(f, problems)?;
            }
        }
        if self.changes.is_empty() {
            return Ok(());
        }
        f.write_str("\nchanges")?;
        let width = |of: &dyn Fn(&Change) -> usize| self.changes.iter().map(of).max();
        let subjects = width(&|change| change.subject.chars().count()).unwrap_or_default();
        let whats = width(&|change| change.what.chars().count()).unwrap_or_default();
        for change in &self.changes {
            let Change {
                subject,
                what,
                now,
                then,
            } = change;
            write!(f, "\n  {subject:subjects$}  {what:whats$}  {now} -> {then}")?;
        }
        Ok(())
    }
}
