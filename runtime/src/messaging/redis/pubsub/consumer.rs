//! A running consumer of channels: it listens on a connection of its own, and again after each loss.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use crate::handling::BoxFuture;
use crate::message::headers::name;
use crate::message::{Incoming, Origin, Place};
use crate::messaging::{Consumer, ConsumerState, Delivery, Settlement, Settler, Subscription};
use crate::observability::metrics::{DROPPED, GAPS, Series};
use crate::redis::{Connection, Failure, FailureKind, Pushes};

use super::super::consumer::{Wish, stopped};
use super::super::core::{BACKOFF_MAX, Core};
use super::super::errors::broker_error;
use super::super::live;
use super::handoff::{Arrived, Handoff};
use super::settings::Settings;
use super::taken::Taken;
use super::wire;

/// A consumer that ran this long starts over with short waits.
const STEADY: Duration = Duration::from_secs(10);

/// The consumer of one subscription.
pub(super) struct ChannelConsumer {
    wish: watch::Sender<Wish>,
    state: watch::Sender<ConsumerState>,
}

impl ChannelConsumer {
    pub(super) fn start(
        core: &Arc<Core>,
        settings: &Settings,
        subscription: &Arc<Subscription>,
        deliveries: mpsc::Sender<Delivery>,
    ) -> Arc<Self> {
        let consumer = Arc::new(Self {
            wish: watch::Sender::new(Wish::Run),
            state: watch::Sender::new(ConsumerState::Starting),
        });
        let context = &core.context;
        let series = |instrument| {
            let labels = vec![Arc::clone(&context.name), Arc::clone(&subscription.label)];
            Series::of(context.metrics.as_deref(), instrument, labels)
        };
        let handoff = Handoff::new(settings.buffer, settings.overflow, series(DROPPED));
        let task = Task {
            core: Arc::clone(core),
            subscription: Arc::clone(subscription),
            listened: Listened::of(core, subscription),
            handoff: Arc::new(handoff),
            taken: Arc::new(Taken::new(
                Arc::clone(&context.name),
                subscription.prefetch,
                series(DROPPED),
            )),
            wish: consumer.wish.subscribe(),
            state: consumer.state.clone(),
            deliveries,
            gaps: series(GAPS),
        };
        tokio::spawn(task.run());
        consumer
    }

    fn wish_for(&self, wish: Wish) {
        // Stopped is for good.
        self.wish.send_if_modified(|now| {
            let changes = *now != Wish::Stop && *now != wish;
            if changes {
                *now = wish;
            }
            changes
        });
    }

    fn go_on(&self, wish: Wish) {
        self.wish_for(wish);
        self.state.send_if_modified(|state| {
            let paused = *state == ConsumerState::Paused;
            if paused {
                *state = ConsumerState::Running;
            }
            paused
        });
    }
}

impl Consumer for ChannelConsumer {
    fn pause(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.wish_for(Wish::Pause);
            self.state.send_if_modified(|state| {
                let runs = *state == ConsumerState::Running;
                if runs {
                    *state = ConsumerState::Paused;
                }
                runs
            });
        })
    }

    fn resume(&self) -> BoxFuture<'_, ()> {
        Box::pin(async { self.go_on(Wish::Run) })
    }

    fn trickle(&self, most: u16) -> BoxFuture<'_, ()> {
        Box::pin(async move { self.go_on(Wish::Trickle(most)) })
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.wish_for(Wish::Stop);
            let mut state = self.state.subscribe();
            // The sender is this struct's own.
            let _ = state
                .wait_for(|state| *state == ConsumerState::Stopped)
                .await;
        })
    }

    fn state(&self) -> ConsumerState {
        self.state.borrow().clone()
    }

    fn changed(&self, known: ConsumerState) -> BoxFuture<'_, ConsumerState> {
        let mut state = self.state.subscribe();
        Box::pin(async move {
            // The sender is this struct's own.
            let now = state.wait_for(|now| *now != known).await;
            now.map_or(ConsumerState::Stopped, |now| now.clone())
        })
    }
}

/// What is listened to: one channel, or a pattern of them.
struct Listened {
    name: String,
    is_pattern: bool,
    prefix: String,
}

impl Listened {
    fn of(core: &Core, subscription: &Subscription) -> Self {
        let topic = &subscription.topic;
        if let Some(channel) = &subscription.redis.stream {
            return Self {
                name: channel.clone(),
                is_pattern: false,
                prefix: String::new(),
            };
        }
        let prefix = core.stream_of("");
        if !topic.is_pattern() {
            return Self {
                name: core.stream_of(topic.as_str()),
                is_pattern: false,
                prefix,
            };
        }
        let mut literal = String::new();
        for letter in prefix.chars() {
            if matches!(letter, '*' | '?' | '[' | ']' | '^' | '\\') {
                literal.push('\\');
            }
            literal.push(letter);
        }
        Self {
            name: format!("{literal}{}", topic.with_wildcard("*")),
            is_pattern: true,
            prefix,
        }
    }

    fn command(&self) -> redis::Cmd {
        let word = if self.is_pattern {
            "PSUBSCRIBE"
        } else {
            "SUBSCRIBE"
        };
        let mut command = redis::cmd(word);
        command.arg(&self.name);
        command
    }
}

struct Task {
    core: Arc<Core>,
    subscription: Arc<Subscription>,
    listened: Listened,
    handoff: Arc<Handoff>,
    taken: Arc<Taken>,
    wish: watch::Receiver<Wish>,
    state: watch::Sender<ConsumerState>,
    deliveries: mpsc::Sender<Delivery>,
    gaps: Series,
}

impl Task {
    async fn run(self) {
        let mut stop = self.wish.clone();
        tokio::select! {
            () = stopped(&mut stop) => {}
            () = self.deliveries.closed() => {}
            () = self.listen() => {}
            () = self.push() => {}
        }
        // Whoever waits for the stop finds everything counted.
        self.handoff.close();
        self.state.send_replace(ConsumerState::Stopped);
    }

    /// Listens, and listens again after each loss; returns when the link is closed.
    async fn listen(&self) {
        let (mut attempt, mut listened) = (0_u32, false);
        let mut told: Option<String> = None;
        while self.core.wait_until_up_or_closed().await {
            let begun = Instant::now();
            let (failure, ran) = match self.subscribe().await {
                Ok(connection) => {
                    if listened {
                        self.gaps.record(1.0);
                        warn!(
                            broker = %self.core.context.name,
                            subscription = %self.subscription.label,
                            "listening again; what was published meanwhile is missing"
                        );
                    } else if told.is_some() {
                        info!(subscription = %self.subscription.label, "listening");
                    }
                    (listened, told) = (true, None);
                    let paused = *self.wish.borrow() == Wish::Pause;
                    self.state.send_replace(if paused {
                        ConsumerState::Paused
                    } else {
                        ConsumerState::Running
                    });
                    {
                        let why = live::gone(&connection).await;
                        (Failure::new(FailureKind::ConnectionLost, why), true)
                    }
                }
                Err(failure) => (failure, false),
            };
            if begun.elapsed() > STEADY {
                attempt = 0;
            }
            let error = broker_error(&self.core.context.name, &failure);
            let text = error.to_string();
            let needs_somebody = !ran && !error.is_retryable();
            self.state.send_replace(if needs_somebody {
                ConsumerState::Failed(text.clone())
            } else {
                ConsumerState::Starting
            });
            if told.as_ref() != Some(&text) {
                warn!(
                    broker = %self.core.context.name,
                    subscription = %self.subscription.label,
                    "not listening: {text}"
                );
                told = Some(text);
            }
            let wait = if needs_somebody {
                self.core
                    .backoff(u32::MAX, BACKOFF_MAX)
                    .max(BACKOFF_MAX / 2)
            } else {
                self.core.backoff(attempt, BACKOFF_MAX)
            };
            attempt = attempt.saturating_add(1);
            sleep(wait).await;
        }
    }

    async fn subscribe(&self) -> Result<Connection, Failure> {
        let handoff = Arc::clone(&self.handoff);
        let pushes: Pushes = Arc::new(move |push| {
            if let Some(arrived) = Arrived::of(push) {
                handoff.offer(arrived);
            }
        });
        let role = format!("listen/{}", self.subscription.label);
        let connection = live::pushed(&self.core, &role, pushes).await?;
        let what = format!("channel `{}`", self.listened.name);
        connection.raw(&what, &self.listened.command()).await?;
        Ok(connection)
    }

    /// Hands to the engine what it may have; returns when the engine takes nothing more.
    async fn push(&self) {
        let settler = Arc::clone(&self.taken) as Arc<dyn Settler>;
        let mut wish = self.wish.clone();
        loop {
            let now = *wish.borrow_and_update();
            match now {
                Wish::Run => self.taken.lift(),
                Wish::Trickle(most) => self.taken.limit(most),
                // A stop ends this from outside.
                Wish::Pause | Wish::Stop => {
                    if wish.changed().await.is_err() {
                        return;
                    }
                    continue;
                }
            }
            loop {
                let place = tokio::select! {
                    biased;
                    changed = wish.changed() => match changed {
                        Ok(()) => break,
                        Err(_) => return,
                    },
                    place = self.next_place() => place,
                };
                let Some(place) = place else {
                    return;
                };
                // Nothing is waited for between taking a message and handing it over: a stop would lose
                // it uncounted.
                if let Some(incoming) = self.handoff.take().and_then(|next| self.read(next)) {
                    let settlement = Settlement::new(Arc::clone(&settler), self.taken.hand_out());
                    place.send(Delivery::new(incoming, settlement));
                }
            }
        }
    }

    /// A place at the engine, once a message is there that may have it; `None` when the engine takes
    /// nothing more.
    async fn next_place(&self) -> Option<mpsc::Permit<'_, Delivery>> {
        self.taken.until_room().await;
        self.handoff.until_some().await;
        self.deliveries.reserve().await.ok()
    }

    /// The message, if it belongs to the subscription: a pattern of the server's also fits channels
    /// with more segments.
    fn read(&self, arrived: Arrived) -> Option<Incoming> {
        let channel: Arc<str> = String::from_utf8_lossy(&arrived.channel).as_ref().into();
        let pattern = &self.subscription.topic;
        let read = wire::read(arrived.message);
        let topic: Arc<str> = match read.headers.text(name::TOPIC) {
            Some(topic) => (*topic).into(),
            None if self.listened.is_pattern => {
                channel.strip_prefix(self.listened.prefix.as_str())?.into()
            }
            None => pattern.as_str().into(),
        };
        if self.listened.is_pattern && !pattern.matches(&topic) {
            return None;
        }
        let origin = Origin::new(
            Arc::clone(&self.core.context.name),
            Place::RedisChannel { channel },
        );
        Some(Incoming::new(topic, read.body, read.headers, origin))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.handoff.close();
    }
}
