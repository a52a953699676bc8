//! Which room names which.

use std::path::Path;

use crate::rules::{ADAPTER_ROOMS, CLIENTS, floor};
use crate::source::{Crate, Mention, SourceFile};

/// Every use that goes up or sideways, and every client crate outside its folder.
pub(crate) fn faults(code: &Crate) -> Vec<String> {
    let mut faults = Vec::new();
    for file in &code.files {
        let Some(room) = file.module.first() else {
            continue;
        };
        if floor(room).is_none() {
            faults.push(format!(
                "{}:1: room '{room}' has no place in the house; give it a line in FLOORS \
                 (tests/tests/house/rules.rs), below all that use it and above all it uses",
                file.path.display()
            ));
            continue;
        }
        for mention in code.mentions(file) {
            let fault = match mention.path[0].as_str() {
                "crate" => {
                    arrow_fault(file, &mention).or_else(|| adapter_fault(code, file, &mention))
                }
                _ => client_fault(code, file, &mention),
            };
            if let Some(fault) = fault {
                faults.push(format!("{}:{}: {fault}", file.path.display(), mention.line));
            }
        }
    }
    faults.dedup();
    faults
}

fn arrow_fault(file: &SourceFile, mention: &Mention) -> Option<String> {
    let (from, to) = (file.module.first()?, mention.path.get(1)?);
    let ((from_line, from), (to_line, to)) = (floor(from)?, floor(to)?);
    let path = mention.path.join("::");
    if from == to || to_line > from_line {
        return None;
    }
    let (why, remedy) = if to_line < from_line {
        (
            format!("{from} lies below {to}"),
            format!(
                "move what is needed down to {from} or lower, or declare a trait in {from} that \
                 {to} implements"
            ),
        )
    } else {
        (
            format!("{from} and {to} are side by side"),
            "move what both need to a lower room, or let a room above bring them together"
                .to_owned(),
        )
    };
    Some(format!("{from} -> {to} ({path}), but {why}; {remedy}"))
}

fn adapter_fault(code: &Crate, file: &SourceFile, mention: &Mention) -> Option<String> {
    let room = ADAPTER_ROOMS
        .iter()
        .find(|room| file.module[0] == room.room)?;
    let adapter = file
        .module
        .get(1)
        .filter(|name| room.adapters.contains(&name.as_str()))?;
    let (target_room, target) = (mention.path.get(1)?, mention.path.get(2)?);
    if target_room != room.room || target == adapter || room.port.contains(&target.as_str()) {
        return None;
    }
    // Not a module, so it is an item that the room shows to everybody.
    if !code.has_module(&mention.path[1..3]) {
        return None;
    }
    let what = if room.adapters.contains(&target.as_str()) {
        "another adapter"
    } else {
        "the inside of the room"
    };
    Some(format!(
        "adapter {adapter} -> {} ({what}), but an adapter uses only the port ({}); move what is \
         needed there, or to a lower room",
        mention.path[1..].join("::"),
        room.port.join(", ")
    ))
}

fn client_fault(code: &Crate, file: &SourceFile, mention: &Mention) -> Option<String> {
    let (client, folders) = CLIENTS
        .iter()
        .find(|(client, _)| mention.path[0] == *client)?;
    let place = file.module.join("/");
    // `http` and `redis` are rooms too: a name that is no dependency is one of ours.
    let own_folder = folders
        .iter()
        .any(|folder| Path::new(&place).starts_with(folder));
    if own_folder || !code.depends_on(client) {
        return None;
    }
    Some(format!(
        "{place} names the client crate {client} ({}), which only {} may; go through the port",
        mention.path.join("::"),
        folders.join(", ")
    ))
}
