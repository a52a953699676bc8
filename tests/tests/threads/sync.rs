//! The atomics and the lock of a model.

pub(crate) use std::sync::PoisonError;

pub(crate) use loom::sync::atomic::{AtomicU64, Ordering, fence};
pub(crate) use loom::sync::{Mutex, MutexGuard};
