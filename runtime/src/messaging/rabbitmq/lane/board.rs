//! The publishes that are open on one channel. There is no task that serves them: whoever waits for
//! one of them and is woken takes a turn for all.
//!
//! Each open publish wakes the one who waits for it, and puts itself on a list. Who is woken polls
//! everything on the list, until nothing is on it: then all that was resolved before anything that he
//! saw resolved is seen too, which is what finding the owners of returned messages needs.

use std::mem;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;
use tokio::sync::{Notify, Semaphore};

use crate::messaging::rabbitmq::core::lock;

use super::ledger::{Identity, Ledger, Resolved, Verdict, Waiting};

pub(super) struct Board {
    state: Mutex<State>,
    ready: Arc<Ready>,
    /// Room for further publishes.
    pub(super) places: Semaphore,
}

#[derive(Default)]
struct State {
    open: Vec<Option<Open>>,
    free: Vec<usize>,
    ledger: Ledger,
    /// What is polled in this round.
    round: Vec<usize>,
}

/// What can go on. Wakers of the client crate's own thread write it, so nothing else happens under its
/// lock.
#[derive(Default)]
struct Ready {
    list: Mutex<Vec<usize>>,
    /// Rings when a publish can go on that nobody waits for, or that others wait for too.
    bell: Arc<Notify>,
    /// A verdict or a place depends on the next turn, and whoever waits for the publish that is woken next may
    /// be busy with something else.
    urgent: AtomicBool,
}

/// An open publish.
struct Open {
    publish: Pin<Box<dyn Future<Output = Resolved> + Send>>,
    waiting: Waiting,
    waker: Waker,
}

/// Where the one who waits for a publish gets his verdict.
pub(super) struct Seat {
    /// The place among the open ones; when it is used again, being polled for nothing does no harm.
    at: usize,
    ready: Arc<Ready>,
    task: AtomicWaker,
    verdict: Mutex<Option<Verdict>>,
    /// Nobody waits any more; the publish stays open all the same.
    abandoned: AtomicBool,
}

impl Seat {
    pub(super) fn answer(&self, verdict: Verdict) {
        *lock(&self.verdict) = Some(verdict);
        self.task.wake();
    }
}

impl Wake for Seat {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        lock(&self.ready.list).push(self.at);
        let abandoned = self.abandoned.load(Ordering::SeqCst);
        if abandoned || self.ready.urgent.load(Ordering::SeqCst) {
            self.ready.bell.notify_one();
        }
        if !abandoned {
            self.task.wake();
        }
    }
}

impl Board {
    /// A board with this many places, which also serves publishes that nobody waits for.
    pub(super) fn new(places: usize) -> Arc<Self> {
        let ready = Arc::<Ready>::default();
        let bell = Arc::clone(&ready.bell);
        let board = Arc::new(Self {
            state: Mutex::default(),
            ready,
            places: Semaphore::new(places),
        });
        let weak = Arc::downgrade(&board);
        tokio::spawn(async move {
            loop {
                bell.notified().await;
                match weak.upgrade() {
                    Some(board) => board.take_turn(),
                    None => return,
                }
            }
        });
        board
    }

    /// Begins a publish, at once and before any that is begun later. It occupies a place from now on,
    /// which the caller has acquired and forgotten, until it is resolved.
    pub(super) fn begin(
        self: &Arc<Self>,
        identity: Identity,
        publish: impl Future<Output = Resolved> + Send + 'static,
    ) -> Publishing {
        let publish = Box::pin(publish);
        let mut state = lock(&self.state);
        let at = state.free.pop().unwrap_or_else(|| {
            state.open.push(None);
            state.open.len() - 1
        });
        let seat = Arc::new(Seat {
            at,
            ready: Arc::clone(&self.ready),
            task: AtomicWaker::new(),
            verdict: Mutex::default(),
            abandoned: AtomicBool::new(false),
        });
        state.open[at] = Some(Open {
            publish,
            waker: Waker::from(Arc::clone(&seat)),
            waiting: Waiting {
                seat: Arc::clone(&seat),
                identity,
            },
        });
        if state.poll(at) {
            self.serve(&mut state, 1);
        } else {
            self.note_urgent(&state);
        }
        drop(state);
        Publishing {
            board: Arc::clone(self),
            seat,
            answered: false,
        }
    }

    fn take_turn(&self) {
        // Whoever has taken it from the list wakes those whom it concerns.
        if !lock(&self.ready.list).is_empty() {
            self.serve(&mut lock(&self.state), 0);
        }
    }

    /// Polls what can go on until nothing can, then answers; `resolved` were resolved already.
    fn serve(&self, state: &mut State, mut resolved: usize) {
        loop {
            mem::swap(&mut *lock(&self.ready.list), &mut state.round);
            if state.round.is_empty() {
                break;
            }
            let mut round = mem::take(&mut state.round);
            for at in round.drain(..) {
                resolved += usize::from(state.poll(at));
            }
            state.round = round;
        }
        if resolved > 0 {
            let idle = state.free.len() == state.open.len();
            state.ledger.close(idle);
            self.places.add_permits(resolved);
        }
        self.note_urgent(state);
    }

    /// Has the bell rung at the next wake where more than one waits for what it brings.
    fn note_urgent(&self, state: &State) {
        let urgent = state.ledger.holds_some() || self.places.available_permits() == 0;
        self.ready.urgent.store(urgent, Ordering::SeqCst);
        // What was woken just before has not seen it.
        if urgent && !lock(&self.ready.list).is_empty() {
            self.ready.bell.notify_one();
        }
    }
}

impl State {
    /// Polls a publish; returns whether it was resolved.
    fn poll(&mut self, at: usize) -> bool {
        let Some(open) = &mut self.open[at] else {
            return false;
        };
        let polled = open
            .publish
            .as_mut()
            .poll(&mut Context::from_waker(&open.waker));
        let Poll::Ready(resolved) = polled else {
            return false;
        };
        if let Some(open) = self.open[at].take() {
            self.free.push(at);
            self.ledger.add(open.waiting, resolved);
        }
        true
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        self.ready.bell.notify_one();
    }
}

/// Waits for the verdict on one publish. Dropped before, it leaves the publish as it is.
pub(super) struct Publishing {
    board: Arc<Board>,
    seat: Arc<Seat>,
    answered: bool,
}

impl Publishing {
    fn verdict(&mut self) -> Option<Verdict> {
        let verdict = lock(&self.seat.verdict).take();
        self.answered = verdict.is_some();
        verdict
    }
}

impl Future for Publishing {
    type Output = Verdict;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Verdict> {
        if let Some(verdict) = self.verdict() {
            return Poll::Ready(verdict);
        }
        // Before the turn: what is answered from now on is seen here or wakes.
        self.seat.task.register(context.waker());
        self.board.take_turn();
        self.verdict().map_or(Poll::Pending, Poll::Ready)
    }
}

impl Drop for Publishing {
    fn drop(&mut self) {
        if !self.answered {
            self.seat.abandoned.store(true, Ordering::SeqCst);
            // Its turn may have come already.
            self.seat.ready.bell.notify_one();
        }
    }
}

#[cfg(test)]
mod tests;
