//! What handlers tell a case, in the order in which they tell it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc};
use tokio::time::timeout;

use crate::world::{LIMIT, QUIET};

/// More than any case notes.
const NOTES_MAX: usize = 20_000;

/// The notes of a case's handlers; a handler takes it as `State<Probe>`.
#[derive(Clone)]
pub(crate) struct Probe {
    send: mpsc::Sender<String>,
    notes: Arc<Mutex<mpsc::Receiver<String>>>,
    seen: Arc<std::sync::Mutex<BTreeSet<String>>>,
}

impl Probe {
    pub(crate) fn new() -> Self {
        let (send, notes) = mpsc::channel(NOTES_MAX);
        Self {
            send,
            notes: Arc::new(Mutex::new(notes)),
            seen: Arc::default(),
        }
    }

    /// Whether this was asked before with the same text.
    pub(crate) fn seen_before(&self, text: &str) -> bool {
        let mut seen = self.seen.lock().expect("nobody panics with it");
        !seen.insert(text.to_owned())
    }

    /// Tells the case.
    pub(crate) fn note(&self, text: impl Into<String>) {
        self.send.try_send(text.into()).expect("few enough notes");
    }

    /// The next note.
    pub(crate) async fn next(&self) -> String {
        let next = async { self.notes.lock().await.recv().await };
        timeout(LIMIT, next)
            .await
            .expect("a note in time")
            .expect("the probe itself can note")
    }

    /// The next note, and it is this one.
    pub(crate) async fn expect(&self, text: &str) {
        assert_eq!(self.next().await, text);
    }

    /// As many notes, in order.
    pub(crate) async fn take(&self, count: usize) -> Vec<String> {
        let mut taken = Vec::with_capacity(count);
        while taken.len() < count {
            let next = async { self.notes.lock().await.recv().await };
            match timeout(LIMIT, next).await {
                Ok(Some(note)) => taken.push(note),
                _ => panic!("{} of {count} notes came: {taken:?}", taken.len()),
            }
        }
        taken
    }

    /// As many notes, sorted.
    pub(crate) async fn take_sorted(&self, count: usize) -> Vec<String> {
        let mut taken = self.take(count).await;
        taken.sort();
        taken
    }

    /// What is there by now.
    pub(crate) async fn drain(&self) -> Vec<String> {
        let mut notes = self.notes.lock().await;
        std::iter::from_fn(|| notes.try_recv().ok()).collect()
    }

    /// Nothing more is noted for a while.
    pub(crate) async fn quiet(&self) {
        self.quiet_for(QUIET).await;
    }

    /// Nothing more is noted for so long.
    pub(crate) async fn quiet_for(&self, span: Duration) {
        let next = async { self.notes.lock().await.recv().await };
        if let Ok(Some(note)) = timeout(span, next).await {
            panic!("`{note}` was noted");
        }
    }
}
