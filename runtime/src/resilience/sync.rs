//! The atomics and the lock on which what is shared between calls stands. A test puts others in their
//! place, which try every order in which threads can meet.

pub(super) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
pub(super) use std::sync::{Mutex, MutexGuard, PoisonError};
