//! What is on the server beside what has to be there, as far as AMQP can tell, and the management API where
//! it may be asked; and the topology in the server's own form.

use std::fmt::Write as _;

use lapin::Connection;

use crate::messaging::{
    BrokerError, BrokerErrorKind, Difference, Export, Inspection, Leftover, Topology, TopologyMode,
    TopologyPart,
};

use super::core::Core;
use super::declare;
use super::leftover::{self, Ours};
use super::management::Listed;
use super::topology::{self, Arguments, Part, Value, exchange_kind};

/// Looks for each part. What is there is then declared as it should be, which changes nothing: the
/// server takes what is the same and refuses what differs.
pub(super) async fn inspect(core: &Core, topology: &Topology) -> Result<Inspection, BrokerError> {
    let broker = &core.context.name;
    let Some(live) = core.live() else {
        let text = "not connected";
        return Err(BrokerError::new(BrokerErrorKind::Unreachable, broker, text));
    };
    let mut inspection = Inspection::default();
    let mut bindings = Vec::new();
    for shown in &topology.parts {
        let part = match topology::read(shown) {
            // Of an instance that is not running.
            None
            | Some(Part::Queue {
                of_instance: true, ..
            }) => continue,
            Some(part @ (Part::Binding { .. } | Part::Chain { .. })) => {
                bindings.push((shown, part));
                continue;
            }
            Some(part) => part,
        };
        let connection = &live.consume;
        let verify = [(part.clone(), TopologyMode::Verify)];
        match declare::all(core, connection, &verify).await {
            Ok(()) => {}
            Err(error) if error.kind() == BrokerErrorKind::NotFound => {
                inspection.missing.push(shown.clone());
                continue;
            }
            Err(error) => return Err(error),
        }
        match declare::all(core, connection, &[(part, TopologyMode::Apply)]).await {
            Ok(()) => {}
            Err(error) if error.kind() == BrokerErrorKind::TopologyConflict => {
                let what = error.to_string();
                inspection
                    .different
                    .push(Difference::new(shown.clone(), what));
            }
            Err(error) if error.kind() == BrokerErrorKind::Permission => {
                let text = format!(
                    "the arguments of {} `{}`: the user may not declare it",
                    shown.kind, shown.name
                );
                inspection.unseen.push(text);
            }
            Err(error) => return Err(error),
        }
    }
    let listed = match core.settings.management() {
        Some(Ok(management)) => management.list().await,
        Some(Err(why)) => Err(why),
        None => Err("AMQP cannot list them; set `management_url`".to_owned()),
    };
    match listed {
        Ok(listed) => {
            bound(&bindings, topology, &listed, &mut inspection);
            leftover(core, &live.consume, topology, &listed, &mut inspection).await?;
        }
        Err(why) => {
            let count = bindings.len();
            inspection.unseen.push(format!(
                "{count} bindings, and queues that are no longer declared: {why}"
            ));
        }
    }
    Ok(inspection)
}

/// Looks for the declared bindings among those that there are.
fn bound(
    declared: &[(&TopologyPart, Part)],
    topology: &Topology,
    listed: &Listed,
    inspection: &mut Inspection,
) {
    for (shown, part) in declared {
        let of_instance =
            matches!(part, Part::Binding { queue, .. } if is_of_instance(topology, queue));
        if !of_instance && !listed.bindings.iter().any(|one| leftover::is(part, one)) {
            inspection.missing.push((*shown).clone());
        }
    }
}

/// What we made and nothing declares any more, with what lies in it.
async fn leftover(
    core: &Core,
    connection: &Connection,
    topology: &Topology,
    listed: &Listed,
    inspection: &mut Inspection,
) -> Result<(), BrokerError> {
    let declared: Vec<Part> = topology.parts.iter().filter_map(topology::read).collect();
    let ours = Ours {
        prefix: core.context.prefix.as_deref().unwrap_or_default(),
        service: &core.context.service,
        declared: &declared,
    };
    let found = ours.find(listed);
    for name in found.queues {
        let depth = declare::depth(core, connection, &name).await?;
        let left = Leftover::new("queue", name);
        inspection.leftover.push(match depth {
            Some(depth) => left.depth(depth),
            None => left,
        });
    }
    let bindings = found.bindings.into_iter();
    inspection
        .leftover
        .extend(bindings.map(|name| Leftover::new("binding", name)));
    if !found.doubtful.is_empty() {
        inspection.unseen.push(format!(
            "whose these dead letters are, whose queue is gone: {}",
            found.doubtful.join(", ")
        ));
    }
    inspection.unseen.push(
        "queues of groups that are no longer declared at all: nothing on the server tells whose they are \
         (`rabbitmqctl list_queues`)"
            .to_owned(),
    );
    Ok(())
}

/// The topology as definitions that the server imports.
pub(super) fn export(core: &Core, topology: &Topology) -> Export {
    let vhost = core.settings.vhost();
    let (mut exchanges, mut queues, mut bindings) = (Vec::new(), Vec::new(), Vec::new());
    for part in &topology.parts {
        match topology::read(part) {
            Some(Part::Exchange { name, kind }) => exchanges.push(format!(
                "{{\"name\":{},\"vhost\":{},\"type\":\"{}\",\"durable\":true,\"auto_delete\":false,\
                 \"internal\":false,\"arguments\":{{}}}}",
                json(&name),
                json(&vhost),
                exchange_kind(kind)
            )),
            // A queue of an instance is made by the instance.
            Some(Part::Queue {
                name,
                of_instance: false,
                arguments,
            }) => queues.push(format!(
                "{{\"name\":{},\"vhost\":{},\"durable\":true,\"auto_delete\":false,\"arguments\":{}}}",
                json(&name),
                json(&vhost),
                table(&arguments)
            )),
            Some(Part::Binding {
                queue,
                exchange,
                key,
                arguments,
            }) if !is_of_instance(topology, &queue) => {
                bindings.push(binding(&vhost, &exchange, &queue, "queue", &key, &arguments));
            }
            Some(Part::Chain { to, from, key }) => {
                bindings.push(binding(&vhost, &from, &to, "exchange", &key, &Vec::new()));
            }
            _ => {}
        }
    }
    let list = |items: &[String]| items.join(",\n    ");
    let text = format!(
        "{{\n  \"exchanges\": [\n    {}\n  ],\n  \"queues\": [\n    {}\n  ],\n  \"bindings\": [\n    {}\n  ]\n}}\n",
        list(&exchanges),
        list(&queues),
        list(&bindings)
    );
    let format = "RabbitMQ definitions: rabbitmqctl import_definitions FILE";
    Export::new(format, "json", text)
}

pub(super) fn is_of_instance(topology: &Topology, queue: &str) -> bool {
    topology.parts.iter().any(|part| {
        let read = topology::read(part);
        matches!(read, Some(Part::Queue { name, of_instance: true, .. }) if name == queue)
    })
}

fn binding(
    vhost: &str,
    source: &str,
    destination: &str,
    kind: &str,
    key: &str,
    arguments: &Arguments,
) -> String {
    format!(
        "{{\"source\":{},\"vhost\":{},\"destination\":{},\"destination_type\":\"{kind}\",\
         \"routing_key\":{},\"arguments\":{}}}",
        json(source),
        json(vhost),
        json(destination),
        json(key),
        table(arguments)
    )
}

fn table(arguments: &Arguments) -> String {
    let shown = arguments.iter().map(|(name, value)| {
        let value = match value {
            Value::Bool(value) => value.to_string(),
            Value::Int(value) => value.to_string(),
            Value::Text(text) => json(text),
        };
        format!("{}:{value}", json(name))
    });
    format!("{{{}}}", shown.collect::<Vec<_>>().join(","))
}

/// A text as JSON writes it.
fn json(text: &str) -> String {
    let mut written = String::from("\"");
    for character in text.chars() {
        match character {
            '"' => written.push_str("\\\""),
            '\\' => written.push_str("\\\\"),
            control if control < ' ' => {
                // Writing to a text cannot fail.
                let _ = write!(written, "\\u{:04x}", u32::from(control));
            }
            other => written.push(other),
        }
    }
    written.push('"');
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_written_as_json() {
        assert_eq!(json("a\"b\\c\n\u{e9}"), "\"a\\\"b\\\\c\\u000a\u{e9}\"");
    }
}
