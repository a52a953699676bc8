//! The dispatcher: takes deliveries as they come and starts their way, bounded.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::messaging::{BatchOptions, Delivery};
use crate::resilience::RateLimiter;

use super::batches::process_batch;
use super::crew::CrewGuard;
use super::held::Held;
use super::process::{Turn, process};
use super::subscription::{Phase, Subscribed};

/// Most deliveries that are taken from the adapter at once.
const TAKEN_AT_ONCE: usize = 64;

/// The tasks of one subscription.
pub(super) struct Dispatcher {
    subscribed: Arc<Subscribed>,
    deliveries: mpsc::Receiver<Delivery>,
    limiter: Option<RateLimiter>,
    tasks: JoinSet<()>,
    crew: Option<CrewGuard>,
    phase: watch::Receiver<Phase>,
}

impl Dispatcher {
    pub(super) fn new(subscribed: Arc<Subscribed>, deliveries: mpsc::Receiver<Delivery>) -> Self {
        let limiter = subscribed
            .planned
            .rate
            .map(|rate| RateLimiter::new(rate.count, rate.per));
        Self {
            phase: subscribed.phase(),
            subscribed,
            deliveries,
            limiter,
            tasks: JoinSet::new(),
            crew: None,
        }
    }

    /// Runs until the subscription is drained.
    pub(super) async fn run(mut self) {
        let planned = &self.subscribed.planned;
        let concurrency = planned.concurrency.max(1) as usize;
        match (planned.batch, planned.ordered_by.is_some()) {
            (Some(batch), ordered) => {
                // Order over batches needs one batch at a time.
                let places = if ordered { 1 } else { concurrency };
                self.run_batches(batch, places, ordered).await;
            }
            (None, true) => self.run_lanes(concurrency).await,
            (None, false) if self.limiter.is_some() => self.run_places(concurrency).await,
            (None, false) => self.run_crew(concurrency).await,
        }
        self.drain().await;
    }

    /// Messages in any order, so many at once.
    async fn run_crew(&mut self, concurrency: usize) {
        let crew = self
            .crew
            .insert(CrewGuard::new(&self.subscribed, concurrency));
        let crew = Arc::clone(crew);
        let mut taken = Vec::with_capacity(TAKEN_AT_ONCE);
        loop {
            let room = tokio::select! {
                biased;
                room = crew.room() => room,
                () = draining(&mut self.phase) => return,
            };
            if !self.take(&mut taken, room.min(TAKEN_AT_ONCE)).await {
                return;
            }
            let held = taken.drain(..);
            crew.add(held.map(|delivery| hold(&self.subscribed, delivery)));
        }
    }

    /// Messages in any order, so many at once and not more often than the rate allows.
    async fn run_places(&mut self, concurrency: usize) {
        let places = Arc::new(Semaphore::new(concurrency));
        let mut taken = Vec::with_capacity(TAKEN_AT_ONCE);
        while self.take(&mut taken, TAKEN_AT_ONCE).await {
            for held in self.hold_all(&mut taken) {
                let Some(permit) = self.place(&places).await else {
                    return;
                };
                let mut turn = Turn::place(permit, Arc::clone(&places));
                let subscribed = Arc::clone(&self.subscribed);
                self.spawn(async move { process(&subscribed, held, &mut turn).await });
            }
        }
    }

    /// Messages in lanes by key: one after the other in each lane.
    async fn run_lanes(&mut self, concurrency: usize) {
        let room = usize::from(self.subscribed.planned.subscription.prefetch).max(1);
        let mut lanes = Vec::with_capacity(concurrency);
        for _ in 0..concurrency {
            let (sender, mut lane) = mpsc::channel::<Held>(room);
            let subscribed = Arc::clone(&self.subscribed);
            self.tasks.spawn(async move {
                while let Some(held) = lane.recv().await {
                    // What waits in the lane when the drain begins goes back; dropping it does that.
                    if subscribed.may_go_on().await {
                        process(&subscribed, held, &mut Turn::Lane).await;
                    } else {
                        drop(held);
                    }
                    subscribed.in_flight.leave();
                }
            });
            lanes.push(sender);
        }
        let mut taken = Vec::with_capacity(TAKEN_AT_ONCE);
        while self.take(&mut taken, TAKEN_AT_ONCE).await {
            for held in self.hold_all(&mut taken) {
                if !self.may_start().await {
                    return;
                }
                let lane = lane_of(held.incoming.key.as_deref(), lanes.len());
                self.subscribed.in_flight.enter();
                // A lane has room for everything that can be out, and ends only with the drain.
                if lanes[lane].send(held).await.is_err() {
                    return;
                }
            }
        }
    }

    /// Messages in batches: when enough are there, or the oldest has waited long enough.
    async fn run_batches(&mut self, options: BatchOptions, places: usize, ordered: bool) {
        let places = Arc::new(Semaphore::new(places));
        let max = options.max.max(1) as usize;
        let mut taken = Vec::with_capacity(max);
        while self.take(&mut taken, max).await {
            let due = Instant::now() + options.wait;
            while taken.len() < max {
                let missing = max - taken.len();
                match timeout_at(due, self.deliveries.recv_many(&mut taken, missing)).await {
                    Ok(0) | Err(_) => break,
                    Ok(_) => {}
                }
            }
            let batch = self.hold_all(&mut taken);
            let Some(permit) = self.place(&places).await else {
                return;
            };
            let count = batch.len();
            let subscribed = Arc::clone(&self.subscribed);
            let places = Arc::clone(&places);
            (0..count).for_each(|_| subscribed.in_flight.enter());
            self.tasks.spawn(async move {
                if ordered {
                    let _permit = permit;
                    process_batch(Arc::clone(&subscribed), batch, Turn::Lane).await;
                } else {
                    let turn = Turn::place(permit, places);
                    process_batch(Arc::clone(&subscribed), batch, turn).await;
                }
                (0..count).for_each(|_| subscribed.in_flight.leave());
            });
        }
    }

    /// Takes what has arrived; `false` when the subscription is to drain.
    async fn take(&mut self, taken: &mut Vec<Delivery>, most: usize) -> bool {
        loop {
            if !self.subscribed.is_running() {
                return false;
            }
            tokio::select! {
                biased;
                () = draining(&mut self.phase) => return false,
                Some(_) = self.tasks.join_next(), if !self.tasks.is_empty() => {
                    // Finished tasks leave the set; their results are in what they settled.
                    while self.tasks.try_join_next().is_some() {}
                }
                count = self.deliveries.recv_many(taken, most) => return count > 0,
            }
        }
    }

    /// Waits for a free place and for leave to start; `None` when the subscription is to drain.
    async fn place(&mut self, places: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
        if !self.may_start().await {
            return None;
        }
        if let Ok(permit) = Arc::clone(places).try_acquire_owned() {
            return Some(permit);
        }
        tokio::select! {
            biased;
            () = self.subscribed.draining() => None,
            permit = Arc::clone(places).acquire_owned() => permit.ok(),
        }
    }

    /// Waits until the gate is open and the rate allows one more.
    async fn may_start(&self) -> bool {
        if self.subscribed.gate.is_open() && self.limiter.is_none() {
            return self.subscribed.is_running();
        }
        let leave = async {
            self.subscribed.gate.open().await;
            if let Some(limiter) = &self.limiter {
                limiter.ready().await;
            }
        };
        tokio::select! {
            biased;
            () = self.subscribed.draining() => false,
            () = leave => true,
        }
    }

    /// Takes charge of all of them before the first one is started: whatever ends the loop then, the
    /// others are given back.
    fn hold_all(&self, taken: &mut Vec<Delivery>) -> Vec<Held> {
        taken
            .drain(..)
            .map(|delivery| self.hold(delivery))
            .collect()
    }

    fn hold(&self, delivery: Delivery) -> Held {
        hold(&self.subscribed, delivery)
    }

    fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        let subscribed = Arc::clone(&self.subscribed);
        subscribed.in_flight.enter();
        self.tasks.spawn(async move {
            task.await;
            subscribed.in_flight.leave();
        });
    }

    /// Gives back what was not started, then waits for what runs; at the deadline that is given
    /// back too.
    async fn drain(mut self) {
        if let Some(crew) = self.crew.take() {
            self.tasks = crew.close();
        }
        self.deliveries.close();
        while let Ok(delivery) = self.deliveries.try_recv() {
            drop(self.hold(delivery));
        }
        let subscribed = Arc::clone(&self.subscribed);
        if subscribed.is_running() {
            // The adapter has dropped its end: there is nothing more to come, and what runs stays in
            // these hands, so that a stop has its deadline and a crash its end.
            tokio::select! {
                biased;
                () = self.tasks_end() => return,
                () = subscribed.draining() => {}
            }
        }
        let Phase::Draining(deadline) = *subscribed.phase().borrow() else {
            return;
        };
        if timeout_at(deadline, self.tasks_end()).await.is_err() {
            tracing::warn!(
                subscription = &**self.subscribed.label(),
                running = self.tasks.len(),
                "handlers did not end in time and were stopped; their messages go back to the broker"
            );
            self.tasks.shutdown().await;
        }
    }

    async fn tasks_end(&mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Waits until the subscription is to drain.
async fn draining(phase: &mut watch::Receiver<Phase>) {
    // The sender lives as long as the subscription, so the wait cannot fail.
    let _ = phase.wait_for(|phase| *phase != Phase::Running).await;
}

fn hold(subscribed: &Subscribed, delivery: Delivery) -> Held {
    Held::new(delivery, Arc::clone(&subscribed.returns))
}

pub(super) fn lane_of(key: Option<&str>, lanes: usize) -> usize {
    // `DefaultHasher::new` has fixed keys: the same key is always in the same lane.
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    usize::try_from(hasher.finish() % lanes as u64).unwrap_or(0)
}
