//! A part of a Kafka cluster that belongs to one case.

use std::sync::Arc;
use std::time::Duration;

use interline::Config;
use interline::config::Faults;
use interline::message::TopicPattern;
use interline::messaging::kafka::{Kafka, Position};
use interline::messaging::{BrokerContext, Group, MessageBroker, Subscription};
use interline_tests::{kafka_shares, servers};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::ground::{OUTPUT, PARTITIONS};
use crate::outside::{Counts, split};
use crate::trouble::{Outcome, Trouble, ensure};

/// Most dead letters of a case.
const LETTERS_MAX: usize = 1_000_000;

/// Everything under one prefix.
pub(crate) struct Topics {
    pub(crate) url: String,
    pub(crate) prefix: String,
    outside: Arc<Kafka>,
}

impl Topics {
    /// A new prefix with a topic for the outputs, and one for the inputs of the service.
    pub(crate) async fn create_on(url: &str) -> Outcome<Self> {
        let prefix = servers::unique_prefix();
        let mut context = BrokerContext::new("main", "outside", "outside-1");
        context.prefix = Some(prefix.as_str().into());
        let config = Config::new()
            .with("brokers.main.url", url)
            .with("brokers.main.partitions", PARTITIONS);
        let section = config.section("brokers.main");
        let broker = Kafka::read(&context, &section, &mut Faults::new());
        let outside = Arc::new(broker.ok_or_else(|| Trouble::new("the url is no good"))?);
        servers::connect(&*outside).await?;
        for queue in ["sink.ledger.output", "ledger.ledger.input"] {
            let wanted = Arc::new(subscription(queue)?);
            outside.apply(&outside.topology(&[wanted])).await?;
        }
        Ok(Self {
            url: url.to_owned(),
            prefix,
            outside,
        })
    }

    /// What waits in a subscription, its retries included.
    pub(crate) async fn counts(&self, queue: &str) -> Outcome<Counts> {
        let (group, topic) = split(queue)?;
        let (group, source) = (self.named(group), self.named(topic));
        let asked = kafka_shares::unfinished(&self.url, &group, move |name| name == source);
        let read = asked
            .await
            .map_err(|error| Trouble::new(error.to_string()))?;
        let members = kafka_shares::members(&self.url, &group).await;
        let members = members.map_err(|error| Trouble::new(error.to_string()))?;
        let retries = self.delayed(queue).await?;
        let whole = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        Ok(Counts {
            ready: whole(read.unread + retries.unread),
            pending: whole(read.held + retries.held),
            consumers: whole(members as u64),
        })
    }

    /// What waits for a retry.
    pub(crate) async fn delayed(&self, queue: &str) -> Outcome<kafka_shares::Unfinished> {
        let (group, topic) = split(queue)?;
        let begin = self.named(&format!("{topic}.{group}.retry."));
        let group = self.named(&format!("{group}.retry"));
        let asked =
            kafka_shares::unfinished(&self.url, &group, move |name| name.starts_with(&begin));
        asked.await.map_err(|error| Trouble::new(error.to_string()))
    }

    /// The dead letters of a subscription: identity and body of each.
    pub(crate) async fn letters(&self, queue: &str) -> Outcome<Vec<(String, Vec<u8>)>> {
        let letters = self.outside.dead_letters();
        let letters = letters.ok_or_else(|| Trouble::new("dead letters are kept"))?;
        let all = letters.list(&subscription(queue)?, LETTERS_MAX).await?;
        let all = all.into_iter();
        Ok(all
            .map(|letter| (letter.id.to_string(), letter.body.to_vec()))
            .collect())
    }

    /// Everything in the topic of the outputs.
    pub(crate) async fn outputs(&self) -> Outcome<Vec<(String, Vec<u8>)>> {
        let (send, mut came) = mpsc::channel(1_000);
        let window = (Position::Earliest, Position::Latest);
        let replaying = self.outside.replay(OUTPUT, window, send);
        let taking = async {
            let mut all = Vec::new();
            while let Some(incoming) = came.recv().await {
                all.push((incoming.id.to_string(), incoming.body.to_vec()));
            }
            all
        };
        let (count, all) = tokio::join!(replaying, taking);
        ensure(count? == all.len() as u64, || {
            "not all outputs came".to_owned()
        })?;
        Ok(all)
    }

    pub(crate) async fn close(&self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        self.outside.disconnect(deadline).await;
    }

    /// A name as it is on the cluster.
    fn named(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}

fn subscription(queue: &str) -> Outcome<Subscription> {
    let (group, topic) = split(queue)?;
    let topic = TopicPattern::parse(topic.to_owned())?;
    Ok(Subscription::new(topic, Group::Named(group.into())))
}
