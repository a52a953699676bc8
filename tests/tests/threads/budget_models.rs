//! Models of the retry budget, and of the window that it counts in.

use std::sync::Arc;
use std::time::Duration;

use loom::thread;
use tokio::time::Instant;

use crate::budget::RetryBudget;
use crate::window::Window;

/// One repeat is left, and two want it at the border of two pieces of time.
pub(crate) fn last_one() {
    let budget = Arc::new(RetryBudget::new(0.5, 0));
    // Its pieces of time, each of a second, count from when it was made.
    let now = Instant::now();
    budget.deposit(now);
    budget.deposit(now);
    let other = Arc::clone(&budget);
    let later = now + Duration::from_secs(1);
    let other = thread::spawn(move || other.withdraw(later));
    let mine = budget.withdraw(now);
    let both = other.join().unwrap() && mine;
    assert!(!both, "two were repeated for one");
}

/// Calls earn what they earn, whoever withdraws beside them.
pub(crate) fn deposits() {
    let now = Instant::now();
    let budget = Arc::new(RetryBudget::new(1.0, 0));
    let other = Arc::clone(&budget);
    let other = thread::spawn(move || {
        other.deposit(now);
        other.withdraw(now)
    });
    budget.deposit(now);
    let mut taken = usize::from(budget.withdraw(now));
    taken += usize::from(other.join().unwrap());
    // Two were earned. Who was refused gave back what it had taken for a moment.
    while budget.withdraw(now) {
        taken += 1;
    }
    assert_eq!(taken, 2);
}

/// A bucket that was used long ago is emptied by the first of two, and not by the second.
pub(crate) fn rolls() {
    let base = Instant::now();
    let window = Arc::new(Window::new(Duration::from_secs(10), base));
    window.add(base, [7, 7, 7]);
    let later = base + Duration::from_secs(10);
    let other = Arc::clone(&window);
    let other = thread::spawn(move || other.add(later, [1, 1, 0]));
    window.add(later, [1, 0, 1]);
    other.join().unwrap();
    assert_eq!(window.sums(later), [2, 1, 1]);
}
