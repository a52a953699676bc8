//! Calls for the same answer at the same time, made as one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::time::Instant;

use super::super::error::CallFailure;
use super::super::stack::Answer;
use super::key::Key;

/// How a flight ended.
#[derive(Clone, Debug)]
pub(super) enum Landing {
    /// With an answer for everybody.
    Answer(Arc<Answer>),
    /// With one that may not be kept, and so is for nobody but the pilot.
    Unshared(Option<Arc<Answer>>),
    /// For everybody who would not have tried harder.
    Failed(Arc<CallFailure>, Effort),
    /// Nobody knows.
    Lost,
}

/// How hard the pilot tried.
#[derive(Clone, Copy, Debug)]
pub(super) struct Effort {
    pub(super) deadline: Instant,
    pub(super) attempts: u32,
}

type Flying = HashMap<Key, watch::Receiver<Option<Landing>>>;

/// Those that are under way.
#[derive(Clone, Default)]
pub(super) struct Flights(Arc<Mutex<Flying>>);

/// What a call is to a flight.
pub(super) enum Seat {
    Pilot(Flight),
    Passenger(Wait),
}

/// One that nobody else makes at the same time. Dropped, it makes room for the next.
pub(super) struct Flight {
    flights: Flights,
    key: Key,
    sender: watch::Sender<Option<Landing>>,
}

/// The way to hear of its end.
pub(super) struct Wait {
    receiver: watch::Receiver<Option<Landing>>,
    is_pilot: bool,
}

impl Flights {
    pub(super) fn board(&self, key: &Key) -> Seat {
        let mut flying = self.lock();
        if let Some(receiver) = flying.get(key) {
            return Seat::Passenger(Wait {
                receiver: receiver.clone(),
                is_pilot: false,
            });
        }
        let (sender, receiver) = watch::channel(None);
        flying.insert(key.clone(), receiver);
        Seat::Pilot(Flight {
            flights: self.clone(),
            key: key.clone(),
            sender,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Flying> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Flight {
    pub(super) fn landing(&self) -> Wait {
        Wait {
            receiver: self.sender.subscribe(),
            is_pilot: true,
        }
    }

    /// Makes it and tells everybody.
    pub(super) async fn fly(self, fetch: impl Future<Output = Landing>) {
        let landing = fetch.await;
        // Who comes from now on finds the answer where it is kept, or asks anew.
        self.flights.lock().remove(&self.key);
        self.sender.send_replace(Some(landing));
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let mut flying = self.flights.lock();
        // By now it may be that of another.
        let is_ours = flying
            .get(&self.key)
            .is_some_and(|receiver| receiver.same_channel(&self.sender.subscribe()));
        if is_ours {
            flying.remove(&self.key);
        }
    }
}

impl Wait {
    pub(super) async fn wait(&mut self) -> Landing {
        let landed = self.receiver.wait_for(Option::is_some).await;
        match landed.as_deref() {
            Ok(Some(Landing::Unshared(answer))) => {
                Landing::Unshared(answer.clone().filter(|_| self.is_pilot))
            }
            Ok(Some(landing)) => landing.clone(),
            Ok(None) | Err(_) => Landing::Lost,
        }
    }
}
