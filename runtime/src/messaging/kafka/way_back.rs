//! How dead letters go back to one subscription alone: by a topic of its retries. Where no retry has a topic,
//! one is made when the first letters go back, and whoever reads the subscription looks for it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::sleep;

use crate::messaging::{BrokerError, BrokerErrorKind, Subscription, TopologyMode};

use super::admin;
use super::core::{Core, Link};
use super::group::{Group, Role};
use super::member::Member;
use super::topology::{self, Names};

/// How often it is looked for a topic that somebody else made.
const LOOK: Duration = Duration::from_secs(5);

/// The topic by which letters go back.
pub(super) struct WayBack {
    /// How long a record waits in it, counted from its timestamp.
    pub(super) rung: Duration,
    pub(super) topic: String,
}

impl WayBack {
    /// The way back of a subscription; its topic is there then.
    pub(super) async fn of(
        core: &Arc<Core>,
        subscription: &Subscription,
        names: &Names,
    ) -> Result<Self, BrokerError> {
        let Some((rung, topic)) = names.way_back() else {
            let text = format!(
                "subscription `{}` is that of one instance, for which Kafka keeps no topic of its own: \
                 its dead letters can be listed, purged and published again, not sent back",
                subscription.label
            );
            return Err(core.error(BrokerErrorKind::Unsupported, text));
        };
        if core.ask_for_topic(&topic).await?.is_none() {
            make(core, subscription, names, &topic).await?;
        }
        Ok(Self { rung, topic })
    }
}

async fn make(
    core: &Arc<Core>,
    subscription: &Subscription,
    names: &Names,
    topic: &str,
) -> Result<(), BrokerError> {
    let part = topology::way_back_topic(topic, names, &core.settings, subscription);
    let modes = [subscription.topology, core.settings.topology];
    if modes.iter().any(|mode| *mode != TopologyMode::Apply) {
        let text = format!(
            "dead letters of subscription `{}` go back by topic `{topic}`, which does not exist: make it, \
             or write `topology = \"apply\"`",
            subscription.label
        );
        return Err(core.error(BrokerErrorKind::NotFound, text));
    }
    if let topology::Source::Topic(source) = &names.source {
        // It gets as many partitions.
        core.ask_for_topic(source).await?;
    }
    admin::make_topics(core, &[&part]).await?;
    core.ways_back.notify_waiters();
    Ok(())
}

/// Looks for a topic by which dead letters come back to a subscription and which is none of its retries,
/// and for those of retries that it had before; has the group of retries read what there is. Ends with the
/// subscription.
pub(super) async fn look(core: Weak<Core>, member: Weak<Member>) {
    let mut known = false;
    loop {
        let made = {
            let (Some(core), Some(member)) = (core.upgrade(), member.upgrade()) else {
                return;
            };
            let Some(topic) = member.names.way_back_beside() else {
                return;
            };
            if core.is_closed() || member.is_stopped() {
                return;
            }
            // From here on it is told, also while it looks.
            let made = Arc::clone(&core.ways_back).notified_owned();
            if *core.link.borrow() == Link::Up {
                let there = core.ask_for_topic(&topic).await;
                let there = matches!(there, Ok(Some(_)));
                if !there && !known {
                    // A question that failed is asked again.
                    let former = has_retries(&core, &member.names).await;
                    known = former.is_ok();
                    if former.unwrap_or(false) {
                        join(&core, &member, None);
                    }
                }
                if there {
                    join(&core, &member, Some(&topic));
                    return;
                }
            }
            made
        };
        tokio::select! {
            () = made => {}
            () = sleep(LOOK) => {}
        }
    }
}

/// Whether there are topics of retries, of a time when they did not wait in the process.
async fn has_retries(core: &Arc<Core>, names: &Names) -> Result<bool, BrokerError> {
    if !names.retries.is_empty() {
        // They are read already.
        return Ok(false);
    }
    let topics = core.ask_for_topics().await?;
    let mut own = topics.iter();
    Ok(own.any(|topic| names.rung_of(&topic.name).is_some()))
}

/// Has the group of retries read what there is for this subscription, `topic` among it.
fn join(core: &Arc<Core>, member: &Arc<Member>, topic: Option<&str>) {
    if member.is_stopped() {
        return;
    }
    if let Some(topic) = topic {
        // The server that is asked for all of them next may not know of it yet.
        member.add_retries([topic]);
    }
    let group = Group::of(core, &member.names.retry_group(), Role::Retries);
    let reads = group.members().iter().any(|one| Arc::ptr_eq(one, member));
    if !reads {
        // The other topics it finds by itself. Others may read in this group: it ends with the connection.
        group.add(member);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::messaging::kafka::assigned::Kind;
    use crate::messaging::kafka::assigned::tests::partition;

    #[tokio::test]
    async fn a_way_back_is_read_whatever_older_answers_say() {
        let (assigned, _deliveries) = partition(Kind::Source);
        let member = &assigned.member;
        let core = &member.core;
        join(core, member, None);
        join(core, member, Some("t.g.retry.1s"));
        // Asked before that one was made.
        member.add_retries(["t.g.retry.5m"]);
        assert_eq!(member.retries(), ["t.g.retry.1s", "t.g.retry.5m"]);
        let group = Group::of(core, &member.names.retry_group(), Role::Retries);
        assert_eq!(group.members().len(), 1);
        core.set_link(Link::Closed);
    }

    #[tokio::test]
    async fn the_first_to_join_reads_the_topic_that_was_seen() {
        let (assigned, _deliveries) = partition(Kind::Source);
        let member = &assigned.member;
        join(&member.core, member, Some("t.g.retry.1s"));
        assert_eq!(member.retries(), ["t.g.retry.1s"]);
        member.core.set_link(Link::Closed);
    }

    #[tokio::test]
    async fn a_subscription_that_was_stopped_ends_no_other_one() {
        let (assigned, _deliveries) = partition(Kind::Source);
        let member = &assigned.member;
        let core = &member.core;
        let group = Group::of(core, &member.names.retry_group(), Role::Retries);
        member.stop_now();
        join(core, member, Some("t.g.retry.1s"));
        assert!(!group.closing.load(Ordering::Acquire));
        core.set_link(Link::Closed);
    }
}
