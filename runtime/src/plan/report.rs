//! The plan in words: what the banner shows and what `check` returns.

use std::fmt;
use std::time::Duration;

use crate::config::units::HumanDuration;
use crate::messaging::{
    Ack, DeliveryMode, OrderedBy, PlannedHandler, PlannedSubscription, RetryPolicy, Start,
    TopologyMode, ladder,
};

use super::problem::{Problem, write_problems};
use super::subscriptions::is_shared;
use super::{Plan, PlannedBroker};

/// Waits of a retry policy that are shown one by one.
const WAITS_SHOWN: usize = 6;

/// What an app will run, in words: service, brokers, a line for each handler with what was decided
/// for it, and warnings. `Display` is the whole text.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PlanReport {
    /// The service's name.
    pub service: String,
    /// A line for each broker.
    pub brokers: Vec<(String, String)>,
    /// A line for each handler and topic.
    pub handlers: Vec<(String, String)>,
    /// A line for each service that may be called.
    pub services: Vec<(String, String)>,
    /// Where the program registers itself: its address, and a line; empty where it does not.
    pub registration: Vec<(String, String)>,
    /// What is odd but can run.
    pub warnings: Vec<Problem>,
    headline: String,
}

impl PlanReport {
    pub(crate) fn new(plan: &Plan) -> Self {
        let version = plan
            .version
            .map_or(String::new(), |version| format!(" {version}"));
        let headline = format!(
            "interline {}: service `{}`{version}, instance {}",
            env!("CARGO_PKG_VERSION"),
            plan.service,
            plan.instance
        );
        let brokers = plan
            .brokers
            .iter()
            .map(|planned| (planned.broker.name().to_string(), broker(planned)));
        let handlers = plan.subscriptions.iter().flat_map(|subscription| {
            let line = move |handler: &PlannedHandler| {
                (handler.name.to_string(), decided(subscription, handler))
            };
            subscription.handlers.iter().map(line)
        });
        Self {
            service: plan.service.to_string(),
            brokers: brokers.collect(),
            handlers: handlers.collect(),
            services: services(plan),
            registration: registration(plan),
            warnings: plan.warnings.clone(),
            headline,
        }
    }

    /// Service, brokers, handlers, the services that may be called and where the program registers
    /// itself, without the warnings.
    pub fn banner(&self) -> String {
        let lines = || {
            let handlers = self.brokers.iter().chain(&self.handlers);
            handlers.chain(&self.services).chain(&self.registration)
        };
        let names = lines().map(|(name, _)| name.chars().count());
        let width = names.max().unwrap_or_default();
        let mut text = self.headline.clone();
        for (kind, lines) in [
            ("broker", &self.brokers),
            ("handler", &self.handlers),
            ("service", &self.services),
            ("itself", &self.registration),
        ] {
            for (name, line) in lines {
                text.push_str(&format!("\n  {kind:7}  {name:width$}  {line}"));
            }
        }
        text
    }
}

impl fmt::Display for PlanReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.banner())?;
        if !self.warnings.is_empty() {
            f.write_str("\nwarnings")?;
        }
        write_problems(f, &self.warnings)
    }
}

#[cfg(feature = "http")]
fn services(plan: &Plan) -> Vec<(String, String)> {
    let services = plan.services.whereabouts();
    services
        .map(|(name, place)| (name.to_owned(), place))
        .collect()
}

#[cfg(not(feature = "http"))]
fn services(_: &Plan) -> Vec<(String, String)> {
    Vec::new()
}

#[cfg(feature = "http")]
fn registration(plan: &Plan) -> Vec<(String, String)> {
    plan.discovery.registers_itself().into_iter().collect()
}

#[cfg(not(feature = "http"))]
fn registration(_: &Plan) -> Vec<(String, String)> {
    Vec::new()
}

fn broker(planned: &PlannedBroker) -> String {
    let mut line = planned.broker.kind().to_owned();
    if let Some(url) = &planned.url {
        line.push_str(&format!(" {url}"));
    }
    if planned.broker.capabilities().durable {
        line.push_str(&format!(", topology {}", mode(planned.topology)));
    } else {
        line.push_str(", in this process: what it holds does not outlive it");
    }
    line
}

fn mode(mode: TopologyMode) -> &'static str {
    match mode {
        TopologyMode::Apply => "apply",
        TopologyMode::Off => "off",
        TopologyMode::Verify => "verify",
    }
}

/// What was decided for one handler.
fn decided(planned: &PlannedSubscription, handler: &PlannedHandler) -> String {
    let subscription = &planned.subscription;
    let mut parts = vec![if is_shared(&subscription.group) {
        format!(
            "`{}` on {}, group {}",
            subscription.topic, planned.broker, subscription.group
        )
    } else {
        format!(
            "`{}` on {}, each instance",
            subscription.topic, planned.broker
        )
    }];
    parts.push(match (planned.batch, planned.ordered_by) {
        (Some(batch), _) => format!("batches of {} or {}", batch.max, HumanDuration(batch.wait)),
        (None, None) => format!("{} at once", planned.concurrency),
        (None, Some(OrderedBy::Key)) => format!("in order by key, {} lanes", planned.concurrency),
        (None, Some(OrderedBy::KeyInProcess)) => {
            format!(
                "in order by key in this process, {} lanes",
                planned.concurrency
            )
        }
    });
    if let Some(rate) = planned.rate {
        parts.push(format!("{} in {}", rate.count, HumanDuration(rate.per)));
    }
    parts.push(format!("timeout {}", HumanDuration(handler.timeout)));
    // What waits in a lane, or is acknowledged already, waits exactly so long.
    let in_process = planned.ordered_by.is_some() || planned.ack == Ack::OnReceive;
    let steps = (!in_process).then_some(&*subscription.ladder);
    parts.push(retries(&handler.retry, steps));
    // What was acknowledged before it failed is kept nowhere, whatever is said of dead letters.
    if planned.ack != Ack::OnReceive {
        parts.push(if subscription.dead_letter {
            "dead letters kept".to_owned()
        } else {
            "dead letters dropped".to_owned()
        });
    }
    match planned.ack {
        Ack::After => {}
        Ack::Manual => parts.push("settled by hand".to_owned()),
        Ack::OnReceive if subscription.delivery == DeliveryMode::AtMostOnce => {
            parts.push("at most once: a crash or a failed attempt loses messages".to_owned());
        }
        Ack::OnReceive => parts.push(
            "acknowledged on receipt: a crash or the last failed attempt loses messages".to_owned(),
        ),
    }
    if subscription.start == Start::Earliest {
        parts.push("from the earliest message".to_owned());
    }
    parts.join("; ")
}

fn retries(policy: &RetryPolicy, ladder: Option<&[Duration]>) -> String {
    if policy.attempts <= 1 {
        return "one attempt".to_owned();
    }
    let mut waits: Vec<String> = ladder::waits(policy, ladder)
        .take(WAITS_SHOWN)
        .map(|wait| HumanDuration(rounded(wait)).to_string())
        .collect();
    if policy.attempts as usize > WAITS_SHOWN + 1 {
        waits.push("..".to_owned());
    }
    format!("{} attempts ({})", policy.attempts, waits.join(" "))
}

/// Waits grow by a factor with a fraction; nobody reads nanoseconds.
pub(super) fn rounded(wait: Duration) -> Duration {
    Duration::from_millis(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX))
}
