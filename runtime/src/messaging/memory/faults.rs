//! Faults to inject, each scripted: what goes wrong, how often, and always the same for a seed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::Rng;
use crate::messaging::CrashPoint;

use super::store::MemoryStore;

/// What goes wrong next; see the methods of [`MemoryFaults`].
#[derive(Debug)]
pub(super) struct Script {
    rng: Rng,
    duplicates: u32,
    lost_confirms: u32,
    nacks: u32,
    delay: Duration,
    reordered: u32,
    reorder_within: Duration,
    refuse_until: Option<Instant>,
    crashes: BTreeMap<CrashPoint, Vec<u32>>,
    /// Until when the last held message of a key is held, and how many are: a later one of that key
    /// must not pass it.
    held: BTreeMap<HeldKey, (Instant, u32)>,
}

/// A queue and a key in it.
type HeldKey = (usize, Arc<str>);

impl Script {
    pub(super) fn new(rng: Rng) -> Self {
        Self {
            rng,
            duplicates: 0,
            lost_confirms: 0,
            nacks: 0,
            delay: Duration::ZERO,
            reordered: 0,
            reorder_within: Duration::ZERO,
            refuse_until: None,
            crashes: BTreeMap::new(),
            held: BTreeMap::new(),
        }
    }

    fn clear(&mut self) {
        let held = std::mem::take(&mut self.held);
        *self = Self {
            held,
            ..Self::new(self.rng.clone())
        };
    }

    pub(super) fn duplicate(&mut self) -> bool {
        take_one(&mut self.duplicates)
    }

    pub(super) fn lose_confirm(&mut self) -> bool {
        take_one(&mut self.lost_confirms)
    }

    pub(super) fn nack(&mut self) -> bool {
        take_one(&mut self.nacks)
    }

    /// Until when no connection is made.
    pub(super) fn refuses_until(&self) -> Option<Instant> {
        self.refuse_until.filter(|until| *until > Instant::now())
    }

    pub(super) fn crashes_at(&mut self, point: CrashPoint) -> bool {
        let Some(counts) = self.crashes.get_mut(&point) else {
            return false;
        };
        for count in counts.iter_mut() {
            *count -= 1;
        }
        let before = counts.len();
        counts.retain(|count| *count > 0);
        counts.len() < before
    }

    /// Until when a message that comes into `queue` is held back, if it is.
    pub(super) fn hold(&mut self, queue: usize, key: Option<&Arc<str>>) -> Option<Instant> {
        if self.delay.is_zero() && self.reordered == 0 && self.held.is_empty() {
            return None;
        }
        let now = Instant::now();
        let mut due = now + self.delay;
        if take_one(&mut self.reordered) {
            let within = u64::try_from(self.reorder_within.as_micros()).unwrap_or(u64::MAX);
            due += Duration::from_micros(self.rng.below(within));
        }
        if let Some(key) = key {
            let held = self.held.get(&(queue, Arc::clone(key)));
            due = due.max(held.map_or(now, |(until, _)| *until));
        }
        if due <= now {
            return None;
        }
        if let Some(key) = key {
            let entry = self.held.entry((queue, Arc::clone(key)));
            let (until, count) = entry.or_insert((due, 0));
            *until = due;
            *count += 1;
        }
        Some(due)
    }

    /// A held message of this key comes free.
    pub(super) fn release(&mut self, queue: usize, key: Option<&Arc<str>>) {
        let Some(key) = key else { return };
        let place = (queue, Arc::clone(key));
        if let Some((_, count)) = self.held.get_mut(&place) {
            *count -= 1;
            if *count == 0 {
                self.held.remove(&place);
            }
        }
    }

    /// A queue is gone, and with it what was held for it.
    pub(super) fn forget(&mut self, queue: usize) {
        self.held.retain(|(held, _), _| *held != queue);
    }
}

fn take_one(count: &mut u32) -> bool {
    let left = *count > 0;
    *count = count.saturating_sub(1);
    left
}

/// Makes things go wrong in a [`MemoryStore`]. Every method adds to the script and returns at once.
///
/// ```
/// use std::time::Duration;
/// use interline::messaging::memory::MemoryStore;
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let store = MemoryStore::default();
/// store.faults().duplicate(1).lose_confirms(2);
/// store.faults().disconnect(Duration::from_secs(1));
/// # });
/// ```
#[derive(Clone, Debug)]
pub struct MemoryFaults {
    store: MemoryStore,
}

impl MemoryFaults {
    pub(super) fn of(store: MemoryStore) -> Self {
        Self { store }
    }

    /// Each of the next `count` deliveries is followed by a second one of the same message.
    pub fn duplicate(&self, count: u32) -> &Self {
        self.edit(|script| script.duplicates += count)
    }

    /// Each of the next `count` messages that come into a queue is held for a random time below
    /// `within`, so that others pass it, but never one of the same key.
    pub fn reorder(&self, count: u32, within: Duration) -> &Self {
        self.edit(|script| {
            script.reordered += count;
            script.reorder_within = within;
        })
    }

    /// From now on each message that comes into a queue is held for this long; zero ends it.
    pub fn delay(&self, by: Duration) -> &Self {
        self.edit(|script| script.delay = by)
    }

    /// The next `count` publishes are stored and their confirmations lost: the sender is told
    /// `ChannelLost`.
    pub fn lose_confirms(&self, count: u32) -> &Self {
        self.edit(|script| script.lost_confirms += count)
    }

    /// The next `count` publishes are refused.
    pub fn nack(&self, count: u32) -> &Self {
        self.edit(|script| script.nacks += count)
    }

    /// Every connection is lost now: what is out goes back to its queue, settlements of it are stale.
    /// Each is made again after `reconnect_after`.
    pub fn disconnect(&self, reconnect_after: Duration) -> &Self {
        self.store.disconnect_all(reconnect_after);
        self
    }

    /// No connection is made for this long. Those that are there stay; see
    /// [`disconnect`](Self::disconnect).
    pub fn refuse_connections(&self, during: Duration) -> &Self {
        self.edit(|script| script.refuse_until = Some(Instant::now() + during))
    }

    /// The process that reaches `point` as the `nth` one from now (from 1) dies there: its connection
    /// ends for good, and whatever it still does has no effect.
    ///
    /// # Panics
    /// If `nth` is 0.
    pub fn crash_at(&self, point: CrashPoint, nth: u32) -> &Self {
        assert!(nth > 0, "crashes are counted from 1");
        self.edit(|script| script.crashes.entry(point).or_default().push(nth))
    }

    /// Nothing goes wrong any more. What is held already stays held until its time.
    pub fn clear(&self) -> &Self {
        self.edit(Script::clear)
    }

    fn edit(&self, change: impl FnOnce(&mut Script)) -> &Self {
        change(&mut self.store.shared.lock().script);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn messages_of_one_key_are_held_in_their_order() {
        let mut script = Script::new(Rng::with_seed(3));
        script.reordered = 20;
        script.reorder_within = Duration::from_secs(1);
        let key: Arc<str> = "k".into();
        let mut last = Instant::now();
        for _ in 0..20 {
            let due = script.hold(0, Some(&key)).expect("a hold");
            assert!(due >= last);
            last = due;
        }
        assert_eq!(script.hold(0, Some(&key)), Some(last), "waits for the held");
        assert_eq!(script.hold(0, None), None);
        for _ in 0..21 {
            script.release(0, Some(&key));
        }
        assert_eq!(script.hold(0, Some(&key)), None);
    }

    #[test]
    fn a_crash_happens_once_at_the_counted_time() {
        let mut script = Script::new(Rng::with_seed(1));
        script.crashes.insert(CrashPoint::BeforeHandler, vec![2, 3]);
        let mut reached = || script.crashes_at(CrashPoint::BeforeHandler);
        assert_eq!(
            [reached(), reached(), reached(), reached()],
            [false, true, true, false]
        );
    }
}
