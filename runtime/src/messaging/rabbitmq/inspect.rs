//! What is on the server beside what has to be there, as far as AMQP can tell; and the topology in the
//! server's own form.

use std::fmt::Write as _;

use crate::messaging::{
    BrokerError, BrokerErrorKind, Difference, Export, Inspection, Topology, TopologyMode,
};

use super::core::Core;
use super::declare;
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
    let mut bindings = 0;
    for shown in &topology.parts {
        let part = match topology::read(shown) {
            // Of an instance that is not running.
            None
            | Some(Part::Queue {
                exclusive: true, ..
            }) => continue,
            Some(Part::Binding { .. } | Part::Chain { .. }) => {
                bindings += 1;
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
    if bindings > 0 {
        inspection.unseen.push(format!(
            "{bindings} bindings: AMQP cannot ask for them (`rabbitmqctl list_bindings`)"
        ));
    }
    inspection.unseen.push(
        "queues that are no longer declared: AMQP cannot list queues (`rabbitmqctl list_queues`)"
            .to_owned(),
    );
    Ok(inspection)
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
                exclusive: false,
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
            }) if !is_exclusive(topology, &queue) => {
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

fn is_exclusive(topology: &Topology, queue: &str) -> bool {
    topology.parts.iter().any(|part| {
        let read = topology::read(part);
        matches!(read, Some(Part::Queue { name, exclusive: true, .. }) if name == queue)
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
