//! A part of a Kafka cluster that belongs to one case, and what a plain client sees and does there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use interline::testing::ServerFixture;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::servers::unique_prefix;

/// How long the cluster may take for one answer.
const ANSWER: Duration = Duration::from_secs(20);
/// How often it is asked what is waited for.
const ASK: Duration = Duration::from_millis(50);
/// Who looks and reads nothing.
const NOBODY: &str = "outside";

/// What went wrong.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

type Result<T> = std::result::Result<T, Error>;

/// The topics and groups whose names begin with a prefix that nobody else has.
#[derive(Debug, Clone)]
pub struct Prefix(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    url: String,
    prefix: String,
}

impl Prefix {
    /// A new prefix on `server`.
    pub fn on(server: &ServerFixture) -> Self {
        Self(Arc::new(Inner {
            url: server.url().to_owned(),
            prefix: unique_prefix(),
        }))
    }

    /// The prefix.
    pub fn name(&self) -> &str {
        &self.0.prefix
    }

    /// Where to connect, as Interline is told it.
    pub fn url(&self) -> &str {
        &self.0.url
    }

    /// A topic or a group as it is on the cluster.
    pub fn named(&self, name: &str) -> String {
        format!("{}{name}", self.0.prefix)
    }

    /// What every client begins with.
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        let servers = self.0.url.trim_start_matches("kafka://");
        config.set("bootstrap.servers", servers);
        config
    }

    /// Waits until `group` has `count` messages of `topic` left that it has not finished.
    ///
    /// # Errors
    ///
    /// When that is not so within `limit`, or the cluster does not answer.
    pub async fn wait_left(
        &self,
        group: &str,
        topic: &str,
        count: u64,
        limit: Duration,
    ) -> Result<()> {
        let (group, topic) = (self.named(group), self.named(topic));
        self.blocking(move |prefix| {
            let client = prefix.reader(&group)?;
            let partitions = partitions(&client, &topic)?;
            let count = i64::try_from(count)?;
            let end = Instant::now() + limit;
            loop {
                let left = left(&client, &topic, partitions)?;
                if left == count {
                    return Ok(());
                }
                if Instant::now() > end {
                    let text = format!("group `{group}` has {left} messages left, not {count}");
                    return Err(text.into());
                }
                std::thread::sleep(ASK);
            }
        })
        .await
    }

    /// Has a group that nobody reads go on behind everything that lies in `topic`, and removes that.
    ///
    /// # Errors
    ///
    /// When the cluster refuses.
    pub async fn skip(&self, group: &str, topic: &str) -> Result<()> {
        let (group, name) = (self.named(group), self.named(topic));
        self.blocking(move |prefix| {
            let client = prefix.reader(&group)?;
            let ends = ends(&client, &name)?;
            Ok(client.commit(&ends, CommitMode::Sync)?)
        })
        .await?;
        self.empty(topic).await
    }

    /// Removes everything that lies in `topic`.
    ///
    /// # Errors
    ///
    /// When the cluster refuses.
    pub async fn empty(&self, topic: &str) -> Result<()> {
        let topic = self.named(topic);
        let looked = self.blocking(move |prefix| ends(&prefix.reader(NOBODY)?, &topic));
        let ends = looked.await?;
        self.admin()?.delete_records(&ends, &options()).await?;
        Ok(())
    }

    /// Removes a group, and what Interline made for it beside `topic`, once its last member has left.
    ///
    /// # Errors
    ///
    /// When that is not so within `limit`, or the cluster refuses.
    pub async fn forget(&self, group: &str, topic: &str, limit: Duration) -> Result<()> {
        let before = format!("{}.{group}.", self.named(topic));
        let made = self.topics(before).await?;
        let admin = self.admin()?;
        if !made.is_empty() {
            let names: Vec<_> = made.iter().map(String::as_str).collect();
            admin.delete_topics(&names, &options()).await?;
        }
        let group = self.named(group);
        for group in [&group, &format!("{group}.retry")] {
            let end = Instant::now() + limit;
            loop {
                let outcome = admin.delete_groups(&[group], &options()).await?;
                let failed = outcome.into_iter().find_map(std::result::Result::err);
                match failed {
                    None | Some((_, RDKafkaErrorCode::GroupIdNotFound)) => break,
                    Some((_, RDKafkaErrorCode::NonEmptyGroup)) if Instant::now() < end => {
                        tokio::time::sleep(ASK).await;
                    }
                    Some((_, code)) => return Err(format!("{group}: {code}").into()),
                }
            }
        }
        Ok(())
    }

    /// Removes all topics.
    ///
    /// # Errors
    ///
    /// When the cluster refuses.
    pub async fn delete(&self) -> Result<()> {
        let names = self.topics(self.0.prefix.clone()).await?;
        if !names.is_empty() {
            let names: Vec<_> = names.iter().map(String::as_str).collect();
            self.admin()?.delete_topics(&names, &options()).await?;
        }
        Ok(())
    }

    fn admin(&self) -> Result<AdminClient<DefaultClientContext>> {
        Ok(self.client().create()?)
    }

    /// A client that joins no group.
    fn reader(&self, group: &str) -> Result<BaseConsumer> {
        let mut config = self.client();
        config
            .set("group.id", group)
            .set("enable.auto.commit", "false");
        Ok(config.create()?)
    }

    async fn topics(&self, before: String) -> Result<Vec<String>> {
        self.blocking(move |prefix| {
            let client = prefix.reader(NOBODY)?;
            let known = client.fetch_metadata(None, ANSWER)?;
            let names = known.topics().iter().map(|topic| topic.name());
            let found = names.filter(|name| name.starts_with(&before));
            Ok(found.map(str::to_owned).collect())
        })
        .await
    }

    /// The library's client blocks.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let prefix = self.clone();
        tokio::task::spawn_blocking(move || work(&prefix)).await?
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(ANSWER))
}

fn partitions(client: &BaseConsumer, topic: &str) -> Result<i32> {
    let known = client.fetch_metadata(Some(topic), ANSWER)?;
    let found = known.topics().iter().find(|known| known.name() == topic);
    let count = found.map_or(0, |known| known.partitions().len());
    if count == 0 {
        return Err(format!("there is no topic `{topic}`").into());
    }
    Ok(i32::try_from(count)?)
}

/// The end of every partition.
fn ends(client: &BaseConsumer, topic: &str) -> Result<TopicPartitionList> {
    let mut ends = TopicPartitionList::new();
    for partition in 0..partitions(client, topic)? {
        let (_, end) = client.fetch_watermarks(topic, partition, ANSWER)?;
        ends.add_partition_offset(topic, partition, Offset::Offset(end))?;
    }
    Ok(ends)
}

/// How many messages the client's group has not finished.
fn left(client: &BaseConsumer, topic: &str, partitions: i32) -> Result<i64> {
    let mut asked = TopicPartitionList::new();
    asked.add_partition_range(topic, 0, partitions - 1);
    let committed = client.committed_offsets(asked, ANSWER)?;
    let mut left = 0;
    for element in committed.elements() {
        let (low, high) = client.fetch_watermarks(topic, element.partition(), ANSWER)?;
        let position = match element.offset() {
            Offset::Offset(position) => position,
            _ => low,
        };
        // Interline notes beside the position what was finished above it.
        let ranges = element.metadata().split_whitespace().skip(2);
        let finished = ranges.filter_map(|range| {
            let (first, end) = range.split_once('-')?;
            Some(end.parse::<i64>().ok()? - first.parse::<i64>().ok()?)
        });
        left += high - position - finished.sum::<i64>();
    }
    Ok(left)
}
