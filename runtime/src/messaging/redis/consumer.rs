//! A running consumer: one session after the other, each rebuilt whenever anything in it ends.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use crate::handling::BoxFuture;
use crate::messaging::{
    BrokerError, BrokerErrorKind, Consumer, ConsumerState, Delivery, OrderedBy, Settler,
    Subscription, TopologyMode,
};

use super::acks;
use super::core::{BACKOFF_MAX, Core, Link};
use super::epoch::{Epoch, Session, certain};
use super::errors::broker_error;
use super::lease;
use super::live::{Live, connection, replaced};
use super::names::Names;
use super::reading::Reading;
use super::settler::{StreamSettler, leave};
use super::topology;

/// A consumer that ran this long starts over with short waits.
const STEADY: Duration = Duration::from_secs(10);

/// What the engine wants of the consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Run,
    /// With so many more at the engine at most.
    Trickle(u16),
    Pause,
    Stop,
}

/// The consumer of one subscription.
pub(super) struct StreamConsumer {
    wish: watch::Sender<Wish>,
    state: watch::Sender<ConsumerState>,
    pub(super) settler: Arc<StreamSettler>,
}

impl StreamConsumer {
    pub(super) fn start(
        core: &Arc<Core>,
        subscription: &Arc<Subscription>,
        deliveries: mpsc::Sender<Delivery>,
    ) -> Arc<Self> {
        let consumer = Arc::new(Self {
            wish: watch::Sender::new(Wish::Run),
            state: watch::Sender::new(ConsumerState::Starting),
            settler: StreamSettler::new(core, subscription),
        });
        let settler = Arc::clone(&consumer.settler);
        let context = &core.context;
        let task = Task {
            core: Arc::clone(core),
            subscription: Arc::clone(subscription),
            wish: consumer.wish.subscribe(),
            state: consumer.state.clone(),
            deliveries,
            erased: Arc::clone(&settler) as Arc<dyn Settler>,
            settler,
            name: format!("{}-{}", context.service, context.instance).into(),
            resume_at: None,
            last_reader: None,
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

    async fn until(&self, reached: impl FnMut(&ConsumerState) -> bool) {
        // The sender is this struct's own.
        let _ = self.state.subscribe().wait_for(reached).await;
    }
}

impl Consumer for StreamConsumer {
    fn pause(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.wish_for(Wish::Pause);
            self.until(|state| *state != ConsumerState::Running).await;
        })
    }

    fn resume(&self) -> BoxFuture<'_, ()> {
        Box::pin(async { self.wish_for(Wish::Run) })
    }

    fn trickle(&self, most: u16) -> BoxFuture<'_, ()> {
        Box::pin(async move { self.wish_for(Wish::Trickle(most)) })
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.wish_for(Wish::Stop);
            self.settler.stop();
            self.until(|state| *state == ConsumerState::Stopped).await;
        })
    }

    fn state(&self) -> ConsumerState {
        let state = self.state.borrow().clone();
        match self.settler.unkept.lasting() {
            Some(why) if state == ConsumerState::Running => ConsumerState::Failed(why),
            _ => state,
        }
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

struct Task {
    core: Arc<Core>,
    subscription: Arc<Subscription>,
    wish: watch::Receiver<Wish>,
    state: watch::Sender<ConsumerState>,
    deliveries: mpsc::Sender<Delivery>,
    settler: Arc<StreamSettler>,
    erased: Arc<dyn Settler>,
    /// The name of this instance in the group.
    name: Arc<str>,
    /// Where the group was when we last had it.
    resume_at: Option<String>,
    /// The reader before, by its number on the server.
    last_reader: Option<u64>,
}

/// How a session ended.
enum End {
    /// Before anything was read.
    Stopped,
    /// With what is still out.
    Draining(Arc<Reading>),
    Lost(BrokerError),
}

impl Task {
    async fn run(mut self) {
        let mut attempt = 0_u32;
        let mut told: Option<String> = None;
        while let Some(live) = self.next_connection().await {
            let begun = Instant::now();
            let (mut stop, state) = (self.wish.clone(), self.state.clone());
            let end = tokio::select! {
                // Set-up waits for the server; a stop does not wait for that. Once it reads, it sees
                // the stop by itself and gives back what it holds.
                () = stopped_before_running(&mut stop, &state) => End::Stopped,
                end = self.serve(&live, &mut told) => end.unwrap_or_else(End::Lost),
            };
            let error = match end {
                End::Stopped => break,
                End::Draining(reading) => {
                    self.state.send_replace(ConsumerState::Stopped);
                    drain(&reading).await;
                    return;
                }
                End::Lost(error) => error,
            };
            self.settler.end();
            if begun.elapsed() > STEADY {
                attempt = 0;
            }
            let text = error.to_string();
            // What ran can run again: a group that is gone is made anew. If somebody has to act after
            // all, the next attempt to set it up shows that.
            let ran = *self.state.borrow() == ConsumerState::Running;
            let needs_somebody = !ran && !error.is_retryable();
            self.state.send_replace(if needs_somebody {
                ConsumerState::Failed(text.clone())
            } else {
                ConsumerState::Starting
            });
            if live.is_up() && told.as_ref() != Some(&text) {
                warn!(
                    broker = %self.core.context.name,
                    subscription = %self.subscription.label,
                    "not consuming: {text}"
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
            tokio::select! {
                () = sleep(wait) => {}
                () = stopped(&mut self.wish) => break,
                // Another connection: nothing of this one's trouble need be true for it.
                () = replaced(&self.core, &live) => attempt = 0,
            }
        }
        self.state.send_replace(ConsumerState::Stopped);
    }

    /// The connection once it is up; `None` to stop.
    async fn next_connection(&mut self) -> Option<Arc<Live>> {
        let mut link = self.core.link.subscribe();
        let wanted = |link: &Link| match link {
            Link::Up(live) => live.is_up(),
            Link::Closed => true,
            Link::Idle | Link::Down | Link::Failed(_) => false,
        };
        let found = tokio::select! {
            found = link.wait_for(wanted) => found.ok()?.clone(),
            () = stopped(&mut self.wish) => return None,
        };
        match found {
            Link::Up(live) => Some(live),
            _ => None,
        }
    }

    async fn serve(
        &mut self,
        live: &Arc<Live>,
        told: &mut Option<String>,
    ) -> Result<End, BrokerError> {
        let core = Arc::clone(&self.core);
        let broker = &core.context.name;
        let names = Arc::clone(&self.settler.names);
        // A group of this instance's own is always ours to make.
        let mode = match self.subscription.topology {
            _ if names.is_own() => TopologyMode::Apply,
            mode => mode,
        };
        let subscription = &self.subscription;
        topology::apply(
            &core,
            live,
            &names,
            &topology::Wanted {
                label: Some(&subscription.label),
                start: subscription.start,
                mode,
                resume_at: self.resume_at.as_deref(),
            },
        )
        .await?;
        let role = format!("consume/{}", subscription.label);
        let reader = connection(&core, &role, core.settings.block)
            .await
            .map_err(|failure| broker_error(broker, &failure))?;
        if let Some(last) = self.last_reader.replace(reader.id) {
            end_reader(&core, live, &role, last).await;
        }
        let probe = probe(&names, &self.name);
        let what = format!("stream `{}`", names.stream);
        let probed = reader.raw(&what, &probe).await;
        probed.map_err(|failure| broker_error(broker, &failure))?;
        let number = core.next_epoch();
        let ordered = subscription.ordered_by == Some(OrderedBy::Key);
        let token = ordered.then(|| format!("{}/{number}", self.name).into());
        let session = Session {
            live: Arc::clone(live),
            names,
            consumer: Arc::clone(&self.name),
            token,
        };
        let mut held_until = None;
        if ordered {
            let taking = lease::take(&core, &session, &mut self.wish, &self.state);
            let asked = tokio::select! {
                taken = taking => taken.map_err(|failure| broker_error(broker, &failure))?,
                () = replaced(&core, live) => return Err(lost(broker, "the connection was lost")),
            };
            let Some(asked) = asked else {
                return Ok(End::Stopped);
            };
            held_until = Some(certain(asked, core.settings.lease));
        }
        let (acks, settled) = mpsc::channel(usize::from(subscription.prefetch).max(1) * 2);
        tokio::spawn(acks::run(session.clone(), settled));
        let prefetch = subscription.prefetch;
        let epoch = Arc::new(Epoch::new(number, session, prefetch, acks, held_until));
        self.settler.begin(Arc::clone(&epoch));
        let reading = Arc::new(Reading {
            core: Arc::clone(&core),
            subscription: Arc::clone(subscription),
            epoch,
            reader,
            settler: Arc::clone(&self.settler),
            erased: Arc::clone(&self.erased),
            wish: self.wish.clone(),
            state: self.state.clone(),
            deliveries: self.deliveries.clone(),
            last_read: std::sync::Mutex::default(),
            places: super::place::Places::of(&self.settler.names),
        });
        if told.take().is_some() {
            info!(broker = %broker, subscription = %subscription.label, "consuming again");
        }
        let end = tokio::select! {
            () = replaced(&core, live) => Err(lost(broker, "the connection was lost")),
            end = reading.run() => end,
        };
        match end {
            Ok(()) => Ok(End::Draining(reading)),
            Err(error) => {
                if let Some(at) = reading.resume_at() {
                    self.resume_at = Some(at);
                }
                // Another instance should not have to wait for the lease to run out.
                let _ = super::settler::give_lease_back(&reading.epoch).await;
                Err(error)
            }
        }
    }
}

/// Ends a reader that we have lost and the server perhaps has not: what it still reads would be handed
/// to nobody. Its number may be somebody else's after a restart of the server, so its name counts too.
async fn end_reader(core: &Core, live: &Live, role: &str, id: u64) {
    let what = "the reader before";
    let mut list = redis::cmd("CLIENT");
    list.arg("LIST").arg("ID").arg(id);
    let name = format!(" name={} ", core.client_name(role));
    let listed = live.settle.query::<String>(what, &list).await;
    if listed.is_ok_and(|listed| listed.contains(&name)) {
        let mut kill = redis::cmd("CLIENT");
        kill.arg("KILL").arg("ID").arg(id);
        // Without the permission it ends by itself when it has blocked long enough.
        let _ = live.settle.raw(what, &kill).await;
    }
}

/// Reads without taking anything: whether the group is there and may be read shows at once.
fn probe(names: &Names, consumer: &str) -> redis::Cmd {
    let mut command = redis::cmd("XREADGROUP");
    command.arg("GROUP").arg(&names.group).arg(consumer);
    command.arg("COUNT").arg(1).arg("STREAMS");
    command.arg(&names.retry).arg(&names.stream);
    command.arg("0").arg("0");
    command
}

fn lost(broker: &Arc<str>, text: &str) -> BrokerError {
    BrokerError::new(BrokerErrorKind::ConnectionLost, broker, text)
}

/// Keeps what is out ours until it is settled, then leaves the group.
async fn drain(reading: &Reading) {
    tokio::select! {
        () = replaced(&reading.core, &reading.epoch.session.live) => {}
        () = reading.keep() => {}
        () = reading.epoch.out.until_empty() => {
            // An instance's own group stays until the instance goes.
            if !reading.epoch.session.names.is_own() {
                // What fails here is done by others once it looks abandoned.
                let _ = leave(&reading.epoch).await;
            }
        }
    }
}

/// Waits for the wish to stop.
pub(super) async fn stopped(wish: &mut watch::Receiver<Wish>) {
    // The sender is held by whoever can ask for a stop; without it, nobody can.
    if wish.wait_for(|wish| *wish == Wish::Stop).await.is_err() {
        future::pending::<()>().await;
    }
}

async fn stopped_before_running(
    wish: &mut watch::Receiver<Wish>,
    state: &watch::Sender<ConsumerState>,
) {
    stopped(wish).await;
    let setting_up =
        |state: &ConsumerState| matches!(state, ConsumerState::Starting | ConsumerState::Failed(_));
    // The sender is the task's own.
    let _ = state.subscribe().wait_for(setting_up).await;
}
