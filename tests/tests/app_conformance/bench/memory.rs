//! The embedded broker. Nobody else can speak to it, so the foreign client is a connection of its own
//! that writes no header by itself.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use interline::clock::{Clock, TokioClock};
use interline::config::Config;
use interline::message::headers::name;
use interline::message::{Incoming, Outgoing, TopicPattern};
use interline::messaging::memory::{MemoryBroker, MemoryOptions, MemoryStore};
use interline::messaging::{BrokerContext, Group, MessageBroker, Subscription};
use interline::{App, Headers, MessageId};
use tokio::sync::mpsc;

use super::{Bench, Seen, Trouble};

/// More than any case publishes.
const LISTENED_MAX: usize = 10_000;

/// A store of its own, and a clock that follows virtual time.
pub(crate) struct MemoryBench {
    store: MemoryStore,
    clock: Arc<dyn Clock>,
    outside: MemoryBroker,
}

impl MemoryBench {
    pub(crate) fn open() -> Arc<Self> {
        let mut options = MemoryOptions::for_tests(1);
        options.strict_topology = true;
        let store = MemoryStore::new(options);
        let clock: Arc<dyn Clock> = Arc::new(TokioClock::starting_at(SystemTime::now()));
        let mut context = BrokerContext::new("main", "outside", "outside");
        context.clock = Arc::clone(&clock);
        let outside = MemoryBroker::new(&store, &context);
        Arc::new(Self {
            store,
            clock,
            outside,
        })
    }
}

fn subscription(group: &str, topic: &str) -> Result<Subscription, Trouble> {
    let pattern = TopicPattern::parse(topic.to_owned())?;
    Ok(Subscription::new(pattern, Group::Named(group.into())))
}

fn seen(incoming: &Incoming) -> Seen {
    Seen {
        headers: incoming.headers.clone(),
        body: incoming.body.clone(),
    }
}

impl Bench for MemoryBench {
    fn configure(&self, config: Config, broker: &str) -> Config {
        config.with(&format!("brokers.{broker}.kind"), "memory")
    }

    fn install(&self, app: App, broker: &str, instance: &str) -> App {
        let mut context = BrokerContext::new(broker, "conform", instance);
        context.clock = Arc::clone(&self.clock);
        app.clock(Arc::clone(&self.clock))
            .broker(Arc::new(MemoryBroker::new(&self.store, &context)))
    }

    fn killed(&self, instance: &str) {
        self.store.kill(instance);
    }

    fn publish<'a>(
        &'a self,
        topic: &'a str,
        body: Bytes,
        headers: Headers,
    ) -> BoxFuture<'a, Result<(), Trouble>> {
        Box::pin(async move {
            self.outside.connect().await?;
            let id = headers.text(name::MESSAGE_ID);
            let id = id.and_then(|id| MessageId::parse(&id));
            // One that is not in the headers is never seen by anybody.
            let unseen = MessageId::parse("unseen").ok_or("a valid id")?;
            let mut outgoing = Outgoing::new(topic.to_owned(), id.unwrap_or(unseen), body);
            outgoing.key = headers.text(name::MESSAGE_KEY).map(|key| key.into_owned());
            outgoing.headers = headers;
            self.outside.publish(outgoing).await?;
            Ok(())
        })
    }

    fn listen<'a>(
        &'a self,
        topic: &'a str,
    ) -> BoxFuture<'a, Result<mpsc::Receiver<Seen>, Trouble>> {
        Box::pin(async move {
            self.outside.connect().await?;
            let (deliver, mut deliveries) = mpsc::channel(LISTENED_MAX);
            let (send, heard) = mpsc::channel(LISTENED_MAX);
            let subscription = Arc::new(subscription("outside", topic)?);
            let consumer = self.outside.subscribe(subscription, deliver).await?;
            tokio::spawn(async move {
                while let Some(delivery) = deliveries.recv().await {
                    if send.send(seen(&delivery.incoming)).await.is_err()
                        || delivery.settlement.done().await.is_err()
                    {
                        break;
                    }
                }
                consumer.stop().await;
            });
            Ok(heard)
        })
    }

    fn take_dead<'a>(
        &'a self,
        group: &'a str,
        topic: &'a str,
    ) -> BoxFuture<'a, Result<Vec<Seen>, Trouble>> {
        Box::pin(async move {
            let subscription = subscription(group, topic)?;
            let letters = self.outside.dead_letters().ok_or("they are kept")?;
            let found = letters.list(&subscription, LISTENED_MAX).await?;
            letters.purge(&subscription, found.len(), &|_| true).await?;
            Ok(found.into_iter().map(|incoming| seen(&incoming)).collect())
        })
    }

    fn left<'a>(&'a self, group: &'a str, topic: &'a str) -> BoxFuture<'a, Result<usize, Trouble>> {
        Box::pin(async move {
            let name = format!("{group}.{topic}");
            let queues = self.store.queues();
            let queue = queues.iter().find(|queue| *queue.name == *name);
            Ok(queue.ok_or(format!("there is no queue `{name}`"))?.ready)
        })
    }
}
