//! What can lose acknowledged messages: told from the server's own settings, as far as this user may
//! read them.

use std::collections::HashMap;
use std::sync::Arc;

use crate::messaging::{BrokerError, DurabilityConcern, Group, Subscription};
use crate::redis::FailureKind;

use super::core::Core;
use super::errors::broker_error;

const ASKED: &[&str] = &["appendfsync", "appendonly", "maxmemory", "maxmemory-policy"];

/// The concerns about the server and these subscriptions.
pub(super) async fn concerns(
    core: &Core,
    subscriptions: &[Arc<Subscription>],
) -> Result<Vec<DurabilityConcern>, BrokerError> {
    let live = core.connected()?;
    let mut settings = HashMap::new();
    for name in ASKED {
        let mut command = redis::cmd("CONFIG");
        command.arg("GET").arg(name);
        let answer = live
            .settle
            .query::<HashMap<String, String>>("the server's settings", &command);
        match answer.await {
            Ok(found) => settings.extend(found),
            // Hosted servers often have no such command.
            Err(failure)
                if matches!(failure.kind, FailureKind::Permission | FailureKind::Refused) =>
            {
                break;
            }
            Err(failure) => return Err(broker_error(&core.context.name, &failure)),
        }
    }
    let mut concerns = of_server(&settings);
    if core.settings.trims_unread && core.settings.max_length > 0 {
        concerns.push(DurabilityConcern::loss(
            format!(
                "a stream of more than {} messages loses its oldest, read or not (`trim = \"always\"`)",
                core.settings.max_length
            ),
            format!("set `trim = \"settled\"` in `[brokers.{}]`", core.context.name),
        ));
    }
    for subscription in subscriptions {
        if let Group::EachInstance { .. } = subscription.group {
            let what = "the group of an instance ends with it, and what it has not handled with it";
            let change = "name a `group` if nothing may be missed";
            let concern = DurabilityConcern::note(what, change).of(&subscription.label);
            concerns.push(concern);
        }
    }
    Ok(concerns)
}

fn of_server(settings: &HashMap<String, String>) -> Vec<DurabilityConcern> {
    let get = |name: &str| settings.get(name).map(String::as_str);
    let mut concerns = Vec::new();
    if settings.is_empty() {
        concerns.push(DurabilityConcern::note(
            "the server does not tell this user whether it persists messages",
            "see that `appendonly yes` is set, or give the user `+config|get`",
        ));
    }
    if get("appendonly") == Some("no") {
        concerns.push(DurabilityConcern::loss(
            "the server keeps messages in memory only (`appendonly no`): a restart loses them",
            "set `appendonly yes` in redis.conf",
        ));
    } else {
        match get("appendfsync") {
            Some("no") => concerns.push(DurabilityConcern::note(
                "the server leaves it to the system when messages reach the disk (`appendfsync no`): \
                 a power failure loses the last half minute or so",
                "set `appendfsync everysec` or `appendfsync always` in redis.conf",
            )),
            Some("everysec") => concerns.push(DurabilityConcern::note(
                "messages reach the disk within a second (`appendfsync everysec`): a power failure \
                 loses the last one",
                "set `appendfsync always` in redis.conf if that is too much",
            )),
            _ => {}
        }
    }
    let evicts = get("maxmemory-policy").filter(|policy| policy.starts_with("allkeys"));
    if let Some(policy) = evicts.filter(|_| get("maxmemory").is_some_and(|bytes| bytes != "0")) {
        concerns.push(DurabilityConcern::loss(
            format!("a server short of memory deletes whole streams (`maxmemory-policy {policy}`)"),
            "set `maxmemory-policy noeviction` in redis.conf",
        ));
    }
    concerns
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messaging::DurabilityWeight::{self, Loss, Note};

    fn told(settings: &[(&str, &str)]) -> Vec<(DurabilityWeight, String)> {
        let settings = settings.iter();
        let settings = settings.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let concerns = of_server(&settings.collect());
        concerns
            .into_iter()
            .map(|concern| (concern.weight, concern.change))
            .collect()
    }

    #[test]
    fn each_setting_that_loses_messages_is_told_with_what_to_write() {
        let safe = [
            ("appendonly", "yes"),
            ("appendfsync", "always"),
            ("maxmemory", "100"),
            ("maxmemory-policy", "noeviction"),
        ];
        assert_eq!(told(&safe), []);
        let memory_only = told(&[("appendonly", "no"), ("appendfsync", "everysec")]);
        let change = "set `appendonly yes` in redis.conf".to_owned();
        assert_eq!(memory_only, [(Loss, change)]);
        let evicting = [
            ("appendonly", "yes"),
            ("maxmemory", "100"),
            ("maxmemory-policy", "allkeys-lru"),
        ];
        let change = "set `maxmemory-policy noeviction` in redis.conf".to_owned();
        assert_eq!(told(&evicting), [(Loss, change)]);
        assert_eq!(
            told(&[("maxmemory-policy", "allkeys-lru"), ("maxmemory", "0")]),
            []
        );
    }

    #[test]
    fn what_takes_a_power_failure_or_is_not_told_is_a_note() {
        for settings in [
            &[("appendonly", "yes"), ("appendfsync", "everysec")][..],
            &[("appendonly", "yes"), ("appendfsync", "no")],
            &[],
        ] {
            let told = told(settings);
            assert_eq!((told.len(), told[0].0), (1, Note), "{settings:?}");
        }
    }
}
