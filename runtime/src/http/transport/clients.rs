//! The clients of the HTTP crate that one service has had, of which one or two are in use: with a new
//! one come new connections, and an old one takes those of its time with it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::{Instant, sleep_until};

use crate::clock::Rng;

use super::super::tls::{FileState, Prepared, Security};
use super::door::{Door, Toward};
use super::{Cause, Ways};

/// The part of a connection's age in which the next client takes over, little by little, so that not all
/// connections are made at once.
const TAKEOVER: f64 = 0.1;
/// The longest that this takes.
const TAKEOVER_MAX: Duration = Duration::from_secs(30);
/// How much earlier than at its latest a client is replaced, by chance: instances that started together
/// do not renew together.
const JITTER: f64 = 0.1;

/// The clients of one service.
#[derive(Debug)]
pub(super) struct Clients {
    current: ArcSwap<Current>,
    ways: Ways,
    security: Security,
    /// The most that a connection may be old; `None` for any age.
    age_max: Option<Duration>,
    rng: Rng,
    generations: AtomicU64,
    /// What was last read from the files, for the next client.
    read: Mutex<Read>,
}

#[derive(Debug)]
struct Read {
    prepared: Arc<Prepared>,
    files: Option<FileState>,
}

/// A client that most instances share, and what those that have their own are made of.
#[derive(Debug)]
struct Generation {
    number: u64,
    client: reqwest::Client,
    prepared: Arc<Prepared>,
}

/// The clients at one moment.
#[derive(Debug)]
struct Current {
    client: Arc<Generation>,
    leaving: Option<Leaving>,
}

/// A client that is used less and less.
#[derive(Debug)]
struct Leaving {
    client: Arc<Generation>,
    since: Instant,
    over: Duration,
}

impl Leaving {
    /// Which part of its work the next one has at `now`.
    fn gone(&self, now: Instant) -> f64 {
        let since = now.saturating_duration_since(self.since).as_secs_f64();
        since / self.over.as_secs_f64().max(f64::EPSILON)
    }
}

impl Clients {
    /// The first one. Reads the files, and connects to nothing.
    pub(super) fn new(
        ways: Ways,
        security: Security,
        age_max: Option<Duration>,
        rng: &Rng,
    ) -> Result<Self, String> {
        // Before they are read: what changes in between is seen at the next look.
        let files = security.look();
        let prepared = Arc::new(security.prepare()?);
        let first = Generation {
            number: 0,
            client: ways.client(&prepared, None)?,
            prepared: Arc::clone(&prepared),
        };
        Ok(Self {
            generations: AtomicU64::new(1),
            current: ArcSwap::from_pointee(Current {
                client: Arc::new(first),
                leaving: None,
            }),
            read: Mutex::new(Read { prepared, files }),
            ways,
            security,
            age_max,
            rng: rng.clone(),
        })
    }

    /// Does something with the client whose turn it is: that of the door, if it has one of its own.
    ///
    /// # Errors
    /// Why that cannot be made.
    pub(super) fn with<T>(
        &self,
        door: Option<&Door>,
        run: impl FnOnce(&reqwest::Client) -> T,
    ) -> Result<T, String> {
        let current = self.current.load();
        let generation = match &current.leaving {
            Some(leaving) if self.rng.unit() >= leaving.gone(Instant::now()) => &leaving.client,
            _ => &current.client,
        };
        let Some(door) = door else {
            return Ok(run(&generation.client));
        };
        let make = |toward| self.ways.client(&generation.prepared, Some(toward));
        let own = door.client(generation.number, make)?;
        Ok(run(own.as_ref().unwrap_or(&generation.client)))
    }

    fn next(&self, prepared: &Arc<Prepared>) -> Result<Arc<Generation>, String> {
        Ok(Arc::new(Generation {
            number: self.generations.fetch_add(1, Ordering::Relaxed),
            client: self.ways.client(prepared, None)?,
            prepared: Arc::clone(prepared),
        }))
    }

    /// Renews them for as long as there is a reason to.
    pub(super) async fn keep(&self, service: &str) {
        let mut old = self.next_renewal();
        let mut gone = None;
        let mut look = self.next_look();
        let mut failed: Option<FileState> = None;
        while let Some(next) = [old, gone, look].into_iter().flatten().min() {
            sleep_until(next).await;
            let due = |when: &Option<Instant>| when.is_some_and(|when| when <= next);
            if due(&look) {
                if self.read_again(service, &mut failed).await {
                    (old, gone) = (self.next_renewal(), None);
                }
                look = self.next_look();
            } else if due(&gone) {
                self.take_over();
                gone = None;
            } else {
                gone = self.renew(service);
                old = self.next_renewal();
            }
        }
    }

    /// So that the last connection of the client of now is closed before it is too old.
    fn next_renewal(&self) -> Option<Instant> {
        let age = self.age_max?;
        let early = takeover(age) + age.mul_f64(JITTER * self.rng.unit());
        Some(Instant::now() + (age - early))
    }

    fn next_look(&self) -> Option<Instant> {
        let every = self.security.look_every()?;
        Some(Instant::now() + every.mul_f64(1.0 - JITTER * self.rng.unit()))
    }

    /// Puts a new client in the place of the one of now, little by little; gives when that is done. Calls
    /// that are under way go on where they are; what lies idle with the old one is closed when it goes.
    fn renew(&self, service: &str) -> Option<Instant> {
        let made = {
            let read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
            self.next(&read.prepared)
        };
        let client = match made {
            Ok(client) => client,
            Err(error) => {
                tracing::warn!(service, error, "connections stay as old as they are");
                return None;
            }
        };
        let since = Instant::now();
        let over = takeover(self.age_max?);
        let leaving = Leaving {
            client: Arc::clone(&self.current.load().client),
            since,
            over,
        };
        self.set(client, Some(leaving));
        Some(since + over)
    }

    fn take_over(&self) {
        let client = Arc::clone(&self.current.load().client);
        self.set(client, None);
    }

    fn set(&self, client: Arc<Generation>, leaving: Option<Leaving>) {
        self.current.store(Current { client, leaving }.into());
    }

    /// Looks at the files, and makes a client of them where they have changed. What is wrong with them
    /// is told once, and what was read before counts until it is right.
    async fn read_again(&self, service: &str, failed: &mut Option<FileState>) -> bool {
        let known = {
            let read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
            read.files
        };
        let security = self.security.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let files = security.look();
            (files != known).then(|| (files, security.prepare()))
        });
        // Not joined only where the runtime ends.
        let Ok(Some((files, prepared))) = reading.await else {
            return false;
        };
        let made = prepared.and_then(|prepared| {
            let prepared = Arc::new(prepared);
            let client = self.next(&prepared)?;
            Ok((prepared, client))
        });
        match made {
            Ok((prepared, client)) => {
                let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
                *read = Read { prepared, files };
                drop(read);
                // At once: the old ones may be withdrawn.
                self.set(client, None);
                *failed = None;
                tracing::info!(service, "certificates read again");
                true
            }
            Err(error) => {
                if *failed != files {
                    tracing::warn!(service, error, "certificates stay as they were");
                }
                *failed = files;
                false
            }
        }
    }
}

/// How long the next client takes to take over.
fn takeover(age: Duration) -> Duration {
    age.mul_f64(TAKEOVER).min(TAKEOVER_MAX)
}

impl Ways {
    /// One that connects to wherever the address of a request is, or to one place.
    fn client(
        &self,
        prepared: &Prepared,
        toward: Option<Toward>,
    ) -> Result<reqwest::Client, String> {
        let mut builder = prepared.apply(self.builder());
        if let Some(toward) = toward {
            builder = builder.dns_resolver(Arc::new(toward));
        }
        builder.build().map_err(|error| Cause::of(&error).0)
    }
}
