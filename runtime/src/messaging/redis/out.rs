//! What a session has out: handed to the engine, or read and held until there is room.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use crate::message::Incoming;

use super::core::lock;

/// Which of a subscription's two streams an entry lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Source {
    Stream,
    Retries,
}

/// An entry that was handed out to us.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) source: Source,
    pub(super) id: Arc<str>,
    /// How often it was handed out.
    pub(super) count: u64,
}

pub(super) struct Out {
    prefetch: usize,
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Default)]
struct Inner {
    entries: HashMap<u64, Entry>,
    known: HashSet<(Source, Arc<str>)>,
    /// Read, and not handed to the engine yet.
    held: VecDeque<(u64, Incoming)>,
    last_tag: u64,
    /// How many may be at the engine, where that is less than the prefetch.
    limit: Option<usize>,
}

impl Inner {
    fn at_engine(&self) -> usize {
        self.entries.len() - self.held.len()
    }
}

impl Out {
    pub(super) fn new(prefetch: u16) -> Self {
        Self {
            prefetch: usize::from(prefetch).max(1),
            inner: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// From now on so many more may be out at most.
    pub(super) fn limit(&self, most: u16) {
        let mut inner = lock(&self.inner);
        let limit = inner.at_engine() + usize::from(most);
        inner.limit = Some(limit.clamp(1, self.prefetch));
        drop(inner);
        self.changed.notify_waiters();
    }

    /// As many may be out as the prefetch says.
    pub(super) fn lift(&self) {
        lock(&self.inner).limit = None;
        self.changed.notify_waiters();
    }

    fn most(&self, inner: &Inner) -> usize {
        inner.limit.unwrap_or(self.prefetch)
    }

    /// Keeps an entry for the engine; not if it is out already.
    pub(super) fn offer(&self, entry: Entry, incoming: Incoming) {
        let mut inner = lock(&self.inner);
        if !inner.known.insert((entry.source, Arc::clone(&entry.id))) {
            return;
        }
        inner.last_tag += 1;
        let tag = inner.last_tag;
        inner.entries.insert(tag, entry);
        inner.held.push_back((tag, incoming));
        drop(inner);
        self.changed.notify_waiters();
    }

    /// The next one for the engine, if it may have another.
    pub(super) fn next(&self) -> Option<(u64, Incoming)> {
        let mut inner = lock(&self.inner);
        if inner.at_engine() >= self.most(&inner) {
            return None;
        }
        inner.held.pop_front()
    }

    /// Waits until [`Out::next`] has one.
    pub(super) async fn until_next(&self) {
        self.until(|inner, most| !inner.held.is_empty() && inner.at_engine() < most)
            .await;
    }

    /// How many more may be read.
    pub(super) fn room(&self) -> usize {
        let inner = lock(&self.inner);
        self.most(&inner).saturating_sub(inner.entries.len())
    }

    /// Waits until there is room.
    pub(super) async fn until_room(&self) {
        self.until(|inner, most| inner.entries.len() < most).await;
    }

    /// Waits until nothing is out.
    pub(super) async fn until_empty(&self) {
        self.until(|inner, _| inner.entries.is_empty()).await;
    }

    async fn until(&self, holds: impl Fn(&Inner, usize) -> bool) {
        loop {
            let changed = self.changed.notified();
            {
                let inner = lock(&self.inner);
                if holds(&inner, self.most(&inner)) {
                    return;
                }
            }
            changed.await;
        }
    }

    pub(super) fn get(&self, tag: u64) -> Option<Entry> {
        lock(&self.inner).entries.get(&tag).cloned()
    }

    /// It is settled, or somebody else's.
    pub(super) fn forget(&self, tag: u64) {
        let mut inner = lock(&self.inner);
        if let Some(entry) = inner.entries.remove(&tag) {
            inner.known.remove(&(entry.source, entry.id));
            inner.held.retain(|(held, _)| *held != tag);
        }
        drop(inner);
        self.changed.notify_waiters();
    }

    /// What was read and never handed to the engine; it is out until it is forgotten.
    pub(super) fn held(&self) -> Vec<(u64, Entry)> {
        let inner = lock(&self.inner);
        let held = inner.held.iter();
        held.filter_map(|(tag, _)| Some((*tag, inner.entries.get(tag)?.clone())))
            .collect()
    }

    /// Everything that is out.
    pub(super) fn all(&self) -> Vec<(u64, Entry)> {
        let inner = lock(&self.inner);
        let mut all: Vec<_> = inner
            .entries
            .iter()
            .map(|(tag, entry)| (*tag, entry.clone()))
            .collect();
        all.sort_unstable_by_key(|(tag, _)| *tag);
        all
    }
}
