//! What happened in words: one line each, indented below what caused it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use crate::message::MessageId;
use crate::messaging::memory::{Ending, Event, EventKind};

/// A short name for each message, and how far it is from what came from outside.
#[derive(Default)]
struct Names(BTreeMap<MessageId, (usize, usize)>);

impl Names {
    /// The number and the depth of a message; a new one is `cause`'s child.
    fn of(&mut self, id: &MessageId, cause: Option<&MessageId>) -> (usize, usize) {
        // A cause may be older than the oldest event that was kept.
        let depth = cause.map_or(0, |cause| self.of(cause, None).1 + 1);
        let next = self.0.len() + 1;
        *self.0.entry(id.clone()).or_insert((next, depth))
    }
}

/// Tells the events of several brokers, at most the last `lines_max`.
pub(super) fn tell(brokers: &[(Arc<str>, Vec<Event>)], lines_max: usize) -> String {
    let mut all: Vec<(&str, &Event)> = Vec::new();
    for (name, events) in brokers {
        all.extend(events.iter().map(|event| (&**name, event)));
    }
    // Each broker's own order stays as it is.
    all.sort_by_key(|(_, event)| event.at);
    let mut names = Names::default();
    let lines: Vec<String> = all
        .into_iter()
        .map(|(broker, event)| {
            let broker = (brokers.len() > 1).then_some(broker);
            line(event, broker, &mut names)
        })
        .collect();
    if lines.is_empty() {
        return "  nothing happened\n".to_owned();
    }
    let mut text = String::new();
    let hidden = lines.len().saturating_sub(lines_max);
    if hidden > 0 {
        let _ = writeln!(text, "  ... {hidden} earlier events");
    }
    for line in &lines[hidden..] {
        let _ = writeln!(text, "{line}");
    }
    text
}

fn line(event: &Event, broker: Option<&str>, names: &mut Names) -> String {
    let (message, what) = told(&event.kind, names);
    let time = event.at.as_secs_f64();
    let broker = broker.map_or(String::new(), |name| format!(" [{name}]"));
    match message {
        None => format!("{time:>10.3}s{broker}  {what}"),
        Some((number, depth)) => {
            let indent = "  ".repeat(depth);
            format!("{time:>10.3}s{broker}  {indent}#{number} {what}")
        }
    }
}

/// What happened, and to which message.
fn told(kind: &EventKind, names: &mut Names) -> (Option<(usize, usize)>, String) {
    match kind {
        EventKind::Connected { instance, .. } => (None, format!("{instance} connected")),
        EventKind::DeadLettered { queue, id, reason } => {
            let what = format!("dead-lettered in {queue} by the broker: {reason}");
            (Some(names.of(id, None)), what)
        }
        EventKind::Delivered {
            instance,
            queue,
            id,
            attempt,
            redelivered,
        } => {
            let again = if *redelivered { ", redelivered" } else { "" };
            let what = format!("{queue} -> {instance}, attempt {attempt}{again}");
            (Some(names.of(id, None)), what)
        }
        EventKind::Disconnected {
            instance,
            unsettled,
        } => (
            None,
            format!("{instance} disconnected, {unsettled} not settled"),
        ),
        EventKind::Noted { id, text } => (Some(names.of(id, None)), text.clone()),
        EventKind::Published {
            instance,
            topic,
            id,
            cause,
            queues,
            confirmed,
        } => {
            let message = names.of(id, cause.as_ref());
            let mut what = format!("published {topic} by {instance} (id {id}");
            if let Some((number, _)) = cause.as_ref().map(|cause| names.of(cause, None)) {
                let _ = write!(what, ", because of #{number}");
            }
            if *queues == 0 {
                what.push_str(", no subscription");
            }
            if !confirmed {
                what.push_str(", confirmation lost");
            }
            what.push(')');
            (Some(message), what)
        }
        EventKind::Refused {
            instance,
            topic,
            id,
            reason,
        } => {
            let what = format!("refused {topic} of {instance}: {reason} (id {id})");
            (Some(names.of(id, None)), what)
        }
        EventKind::Replied {
            instance,
            id,
            request,
            heard,
        } => {
            let request = request.as_deref().and_then(MessageId::parse);
            let message = names.of(id, request.as_ref());
            let mut what = format!("replied by {instance} (id {id}");
            if let Some((number, _)) = request.as_ref().map(|request| names.of(request, None)) {
                let _ = write!(what, ", to #{number}");
            }
            if !heard {
                what.push_str(", nobody listens any more");
            }
            what.push(')');
            (Some(message), what)
        }
        EventKind::Scheduled {
            instance,
            topic,
            id,
            wait,
        } => {
            let wait = humantime::format_duration(*wait);
            let what = format!("scheduled {topic} in {wait} by {instance} (id {id})");
            (Some(names.of(id, None)), what)
        }
        EventKind::Remarked { text } => (None, text.clone()),
        EventKind::Returned { queue, id } => {
            (Some(names.of(id, None)), format!("due again in {queue}"))
        }
        EventKind::Settled { queue, id, how } => {
            let what = match how {
                Ending::DeadLettered => format!("dead-lettered in {queue}"),
                Ending::Done => format!("done in {queue}"),
                Ending::Dropped => format!("dropped in {queue}"),
                Ending::Released => format!("given back to {queue}"),
                Ending::Retried(after) => {
                    let after = humantime::format_duration(*after);
                    format!("to be retried after {after} in {queue}")
                }
            };
            (Some(names.of(id, None)), what)
        }
        EventKind::Stale { instance } => {
            (None, format!("a settlement of {instance} came too late"))
        }
    }
}
