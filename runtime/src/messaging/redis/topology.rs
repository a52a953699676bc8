//! What has to exist on the server for a subscription, and how it comes to.

use std::sync::Arc;

use crate::messaging::{
    BrokerError, BrokerErrorKind, Start, Subscription, Topology, TopologyMode, TopologyPart,
};

use super::core::Core;
use super::errors::broker_error;
use super::live::Live;
use super::names::Names;
use super::scripts;

pub(super) const GROUP: &str = "group";
pub(super) const STREAM: &str = "stream";
pub(super) const SHARED: &str = "of";
const START: &str = "start";
const INSTANCE: &str = "instance";

/// The topology of some subscriptions as data.
pub(super) fn readable(prefix: Option<&str>, subscriptions: &[Arc<Subscription>]) -> Topology {
    let mut parts: Vec<TopologyPart> = Vec::new();
    for subscription in subscriptions {
        let names = Names::of(prefix, subscription);
        let mode = subscription.topology;
        let label = Some(Arc::clone(&subscription.label));
        let part = |kind, name: &str, arguments: &[(&str, &str)]| {
            let mut part = TopologyPart::new(kind, name, mode);
            part.arguments = arguments
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect();
            part.subscription.clone_from(&label);
            part
        };
        if !parts
            .iter()
            .any(|part| part.kind == STREAM && part.name == names.stream)
        {
            let mut stream = TopologyPart::new(STREAM, &names.stream, mode);
            stream.subscription = None;
            parts.push(stream);
        }
        let start = start_name(subscription.start);
        let of = names.group.as_str();
        let mut group = part(
            GROUP,
            of,
            &[(STREAM, names.stream.as_str()), (START, start)],
        );
        if names.is_own() {
            let instance = (INSTANCE.to_owned(), "true".to_owned());
            group.arguments.push(instance);
        }
        parts.push(group);
        parts.push(part(STREAM, &names.retry, &[(SHARED, of)]));
    }
    Topology::new(parts)
}

/// How a start is written.
pub(super) fn start_name(start: Start) -> &'static str {
    match start {
        Start::Earliest => "earliest",
        Start::New => "new",
    }
}

/// What a part says of itself under this name.
pub(super) fn argument<'a>(part: &'a TopologyPart, wanted: &str) -> Option<&'a str> {
    let found = part.arguments.iter().find(|(name, _)| name == wanted);
    found.map(|(_, value)| value.as_str())
}

/// A group of a topology.
pub(super) struct Part {
    pub(super) names: Names,
    pub(super) start: Start,
    /// Whether it goes with the instance.
    pub(super) is_own: bool,
    mode: TopologyMode,
    label: Option<Arc<str>>,
}

/// The groups of a topology: making one makes its streams. What is nothing that Redis has is an error.
pub(super) fn groups(broker: &Arc<str>, topology: &Topology) -> Result<Vec<Part>, BrokerError> {
    let mut groups = Vec::new();
    for part in &topology.parts {
        let argument = |wanted: &str| argument(part, wanted);
        match (part.kind, argument(STREAM)) {
            (STREAM, _) => {}
            (GROUP, Some(stream)) => groups.push(Part {
                names: Names::with(stream.to_owned(), part.name.clone(), &part.name, None),
                start: match argument(START) {
                    Some("earliest") => Start::Earliest,
                    _ => Start::New,
                },
                is_own: argument(INSTANCE).is_some(),
                mode: match argument(INSTANCE) {
                    Some(_) => TopologyMode::Apply,
                    None => part.mode,
                },
                label: part.subscription.clone(),
            }),
            _ => {
                let text = format!("{} `{}` is nothing that Redis has", part.kind, part.name);
                return Err(BrokerError::new(
                    BrokerErrorKind::Configuration,
                    broker,
                    text,
                ));
            }
        }
    }
    Ok(groups)
}

/// Makes or checks the groups.
pub(super) async fn apply_all(
    core: &Core,
    live: &Live,
    groups: &[Part],
) -> Result<(), BrokerError> {
    for part in groups {
        let wanted = Wanted {
            label: part.label.as_ref(),
            start: part.start,
            mode: part.mode,
            resume_at: None,
        };
        apply(core, live, &part.names, &wanted).await?;
    }
    Ok(())
}

/// How a group is wanted.
pub(super) struct Wanted<'a> {
    pub(super) label: Option<&'a Arc<str>>,
    pub(super) start: Start,
    pub(super) mode: TopologyMode,
    /// Where this process knows it to have been.
    pub(super) resume_at: Option<&'a str>,
}

/// Makes or checks what one group needs.
pub(super) async fn apply(
    core: &Core,
    live: &Live,
    names: &Names,
    wanted: &Wanted<'_>,
) -> Result<(), BrokerError> {
    let broker = &core.context.name;
    let whose = match wanted.label {
        Some(label) => format!("subscription `{label}`: "),
        None => String::new(),
    };
    let what = format!(
        "{whose}group `{}` of stream `{}`",
        names.group, names.stream
    );
    let failed = |failure| broker_error(broker, &failure);
    match wanted.mode {
        TopologyMode::Off => Ok(()),
        TopologyMode::Apply => {
            let start = start_name(wanted.start);
            let mut script = scripts::APPLY.key(&names.stream);
            script.key(&names.retry).key(&names.state);
            script.arg(&names.group).arg(start);
            script.arg(wanted.resume_at.unwrap_or_default());
            let made: i64 = live.settle.run(&what, &script).await.map_err(failed)?;
            if made > 0 {
                tracing::info!(broker = %broker, "{what}: made");
            }
            Ok(())
        }
        TopologyMode::Verify => {
            let mut script = scripts::VERIFY.key(&names.stream);
            script.key(&names.retry).arg(&names.group);
            let (there, retries): (i64, i64) =
                live.settle.run(&what, &script).await.map_err(failed)?;
            let missing = match (there, retries) {
                (0, _) => &names.stream,
                (_, 0) => &names.retry,
                _ => return Ok(()),
            };
            let from = if there == 0 { "$" } else { "0" };
            let text = format!(
                "{whose}stream `{missing}` has no consumer group `{group}`; make it with \
                 `XGROUP CREATE {missing} {group} {from} MKSTREAM`, or set `topology = \"apply\"`",
                group = names.group
            );
            Err(BrokerError::new(BrokerErrorKind::NotFound, broker, text))
        }
    }
}
