//! The crew of a subscription: workers that handle its messages in any order, so many at once.
//!
//! Workers stay, so a message costs neither a task of its own nor, while one of them is busy anyway,
//! a wake-up. One is called at a time: whoever takes a message calls the next if more wait. So all
//! cores get work as soon as there is enough of it, and nobody is woken for nothing.

use std::collections::VecDeque;
use std::mem;
use std::ops::Deref;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use super::held::Held;
use super::process::{Turn, process};
use super::subscription::Subscribed;

/// What the workers of one subscription share.
pub(super) struct Crew {
    subscribed: Arc<Subscribed>,
    /// Messages handled at once.
    size: usize,
    /// One place for each of them; who waits for a retry leaves his.
    places: Arc<Semaphore>,
    /// Most messages that wait for a worker.
    room: usize,
    state: Mutex<State>,
    /// Calls a parked worker.
    call: Notify,
    /// There is room again.
    taken: Notify,
    workers: Mutex<JoinSet<()>>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Held>,
    workers: usize,
    /// Workers that have nothing to do.
    parked: usize,
    /// Workers whose message waits for a retry; others take their places.
    away: usize,
    /// A worker was called and has not looked yet.
    called: bool,
    closed: bool,
}

/// What a worker does next.
enum Next {
    Work,
    Park,
    End,
}

impl Crew {
    /// The places of those who work.
    pub(super) fn places(&self) -> &Arc<Semaphore> {
        &self.places
    }

    /// How many messages it takes now; waits until it takes any.
    pub(super) async fn room(&self) -> usize {
        loop {
            let taken = self.taken.notified();
            let waiting = self.lock().waiting.len();
            if waiting < self.room {
                return self.room - waiting;
            }
            taken.await;
        }
    }

    /// Gives it messages to handle.
    pub(super) fn add(self: &Arc<Self>, messages: impl Iterator<Item = Held>) {
        let mut state = self.lock();
        state.waiting.extend(messages);
        self.call_one(state);
    }

    /// A worker's message waits for a retry: until the returned value is dropped, somebody else may
    /// have its place.
    pub(super) fn leave_for_a_while(self: &Arc<Self>) -> Absence {
        let mut state = self.lock();
        state.away += 1;
        self.call_one(state);
        Absence(Arc::clone(self))
    }

    /// Calls a worker, or hires one, if there is something to do and nobody was called for it.
    fn call_one(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        if state.called || state.closed || state.waiting.is_empty() {
            return;
        }
        if state.parked > 0 {
            state.parked -= 1;
            state.called = true;
            drop(state);
            self.call.notify_one();
        } else if state.workers < self.size + state.away {
            state.workers += 1;
            state.called = true;
            drop(state);
            let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
            while workers.try_join_next().is_some() {}
            // A runtime that shuts down drops it here and now.
            workers.spawn(work(Worker {
                crew: Arc::clone(self),
                called: true,
                began: false,
            }));
        }
    }

    /// Starts nothing more. What waits is given back; who works goes on.
    fn close(&self) -> JoinSet<()> {
        let mut state = self.lock();
        state.closed = true;
        let waiting = mem::take(&mut state.waiting);
        self.pass_on(state);
        drop(waiting);
        mem::take(&mut *self.workers.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Calls the next parked worker to its end; it calls the one after that.
    fn pass_on(&self, mut state: MutexGuard<'_, State>) {
        if !state.called && state.parked > 0 {
            state.parked -= 1;
            state.called = true;
            drop(state);
            self.call.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A crew whose workers end with it.
pub(super) struct CrewGuard(Arc<Crew>);

impl CrewGuard {
    pub(super) fn new(subscribed: &Arc<Subscribed>, size: usize) -> Self {
        let prefetch = usize::from(subscribed.planned.subscription.prefetch).max(1);
        Self(Arc::new(Crew {
            subscribed: Arc::clone(subscribed),
            size,
            places: Arc::new(Semaphore::new(size)),
            // What can be out before and after a reconnect.
            room: prefetch.saturating_mul(2),
            state: Mutex::default(),
            call: Notify::new(),
            taken: Notify::new(),
            workers: Mutex::default(),
        }))
    }

    /// Starts nothing more and gives back what waits; returns who still works.
    pub(super) fn close(self) -> JoinSet<()> {
        self.0.close()
    }
}

impl Deref for CrewGuard {
    type Target = Arc<Crew>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Drop for CrewGuard {
    fn drop(&mut self) {
        // The set of workers ends them when it is dropped.
        drop(self.0.close());
    }
}

/// A worker's absence; it ends when this is dropped.
pub(super) struct Absence(Arc<Crew>);

impl Drop for Absence {
    fn drop(&mut self) {
        self.0.lock().away -= 1;
    }
}

struct Worker {
    crew: Arc<Crew>,
    /// It was called, and others are called only when it has looked.
    called: bool,
    /// Whether it ever ran.
    began: bool,
}

impl Worker {
    /// Takes a message, if one may be started, and calls the next worker if more wait.
    fn take(&mut self) -> Option<Held> {
        let crew = &self.crew;
        if !crew.subscribed.is_running() {
            return None;
        }
        let mut state = crew.lock();
        if mem::take(&mut self.called) {
            state.called = false;
        }
        let was_full = state.waiting.len() >= crew.room;
        let held = state.waiting.pop_front();
        crew.call_one(state);
        if was_full {
            crew.taken.notify_one();
        }
        held
    }

    /// Decides after it found nothing to take.
    fn look(&mut self) -> Next {
        let crew = &self.crew;
        let running = crew.subscribed.is_running();
        let mut state = crew.lock();
        if mem::take(&mut self.called) {
            state.called = false;
        }
        if state.closed || !running || state.workers > crew.size + state.away {
            return Next::End;
        }
        if state.waiting.is_empty() {
            state.parked += 1;
            return Next::Park;
        }
        Next::Work
    }
}

impl Drop for Worker {
    /// However it ends, by a panic too, its work goes to others. Only where it never ran there is no
    /// runtime any more that others could run on.
    fn drop(&mut self) {
        let mut state = self.crew.lock();
        state.workers -= 1;
        if self.called {
            state.called = false;
        }
        if !self.began {
            return;
        }
        if state.closed {
            self.crew.pass_on(state);
        } else if self.crew.subscribed.is_running() {
            self.crew.call_one(state);
        }
    }
}

async fn work(mut worker: Worker) {
    worker.began = true;
    let crew = Arc::clone(&worker.crew);
    let subscribed = &*crew.subscribed;
    let mut place: Option<OwnedSemaphorePermit> = None;
    loop {
        if let Some(permit) = place.take_if(|_| subscribed.gate.is_open()) {
            let Some(held) = worker.take() else {
                drop(permit);
                match worker.look() {
                    Next::Work => {}
                    Next::Park => {
                        crew.call.notified().await;
                        worker.called = true;
                    }
                    Next::End => return,
                }
                continue;
            };
            let mut turn = Turn::of_crew(permit, &crew);
            subscribed.in_flight.enter();
            {
                // Awaited where it is made: it is large, and would be moved once more.
                let mut handling = pin!(process(subscribed, held, &mut turn));
                handling.as_mut().await;
            }
            subscribed.in_flight.leave();
            place = turn.into_permit();
            continue;
        }
        // Nobody keeps a place while he waits for the gate.
        drop(place.take());
        if !subscribed.gate.is_open() {
            tokio::select! {
                biased;
                () = subscribed.draining() => return,
                () = subscribed.gate.open() => {}
            }
        }
        // The semaphore is never closed.
        place = Arc::clone(&crew.places).acquire_owned().await.ok();
        if place.is_none() {
            return;
        }
    }
}
