//! What of the cluster's settings can lose messages that it acknowledged.

use std::sync::Arc;

use crate::messaging::{BrokerError, DurabilityConcern, Subscription, TopologyMode};

use super::admin;
use super::core::Core;
use super::link::Topic;
use super::topology::{self, Source};

/// Concerns about the topics of these subscriptions. A topic that does not exist yet is looked at as it
/// will be made.
pub(super) async fn concerns(
    core: &Arc<Core>,
    subscriptions: &[Arc<Subscription>],
) -> Result<Vec<DurabilityConcern>, BrokerError> {
    let there = core.ask_for_topics().await?;
    let mut found = Vec::new();
    let mut asked: Vec<(&Arc<Subscription>, &Topic)> = Vec::new();
    for subscription in subscriptions {
        let prefix = core.context.prefix.as_deref();
        let names = topology::names(prefix, &core.settings, subscription);
        let own = names.retries.iter().map(|(_, name)| name.as_str());
        let mut topics: Vec<&str> = own.collect();
        if subscription.dead_letter {
            topics.push(&names.dead_letters);
        }
        if let Source::Topic(topic) = &names.source {
            topics.insert(0, topic);
        }
        let existing: Vec<&Topic> = topics
            .iter()
            .filter_map(|name| there.iter().find(|topic| topic.name == *name))
            .collect();
        // One that exists stands for those of its subscription that were made with it.
        let replication = subscription
            .kafka
            .replication
            .unwrap_or(core.settings.replication);
        let fewest = existing.iter().min_by_key(|topic| topic.replicas);
        match fewest {
            Some(topic) if topic.replicas < 2 => {
                found.push(single(&topic.name, subscription));
            }
            None if replication == 1 && subscription.topology == TopologyMode::Apply => {
                let name = topics.first().copied().unwrap_or("the topics");
                found.push(single(name, subscription));
            }
            _ => {}
        }
        // The settings of its own topics are those of the source unless somebody changed them.
        if let Some(topic) = existing.first() {
            asked.push((subscription, topic));
        }
    }
    if asked.is_empty() {
        return Ok(found);
    }
    let names: Vec<&str> = asked.iter().map(|(_, topic)| topic.name.as_str()).collect();
    let described = admin::describe_topics(core, &names).await?;
    for (subscription, topic) in asked {
        // It may not be ours to see.
        let Some(config) = described.get(&topic.name) else {
            continue;
        };
        let value = |name: &str| config.get(name).and_then(|entry| entry.value.clone());
        let in_sync: Option<usize> =
            value("min.insync.replicas").and_then(|text| text.parse().ok());
        if topic.replicas >= 2 && in_sync == Some(1) {
            found.push(
                DurabilityConcern::loss(
                    format!(
                        "topic `{}` lets one server alone acknowledge (`min.insync.replicas` is 1): what it \
                         has not passed on is lost with it",
                        topic.name
                    ),
                    "set `min.insync.replicas=2` on the topic",
                )
                .of(&subscription.label),
            );
        }
        if value("unclean.leader.election.enable").as_deref() == Some("true") {
            found.push(
                DurabilityConcern::loss(
                    format!(
                        "topic `{}` lets a server lead that lacks acknowledged messages \
                         (`unclean.leader.election.enable`)",
                        topic.name
                    ),
                    "set `unclean.leader.election.enable=false` on the topic",
                )
                .of(&subscription.label),
            );
        }
    }
    Ok(found)
}

fn single(topic: &str, subscription: &Subscription) -> DurabilityConcern {
    DurabilityConcern::loss(
        format!(
            "topic `{topic}` has one replica: a machine that fails takes what it had not written to disk"
        ),
        "write `replication = 3` for the broker before its topics are made, or give the topic more replicas",
    )
    .of(&subscription.label)
}
