//! The crew on several threads: nobody is forgotten, and never too many at once.

use tokio::sync::Notify;
use tokio::time::timeout;

use super::*;

const LIMIT: Duration = Duration::from_secs(60);

/// Counts who is at work, and what was finished.
#[derive(Default)]
struct Watch {
    now: AtomicUsize,
    most: AtomicUsize,
    done: AtomicUsize,
    expected: usize,
    all: Notify,
}

/// One who is at work, until it is dropped.
struct AtWork<'a>(&'a Watch);

impl<'a> AtWork<'a> {
    fn begin(watch: &'a Watch) -> Self {
        let now = watch.now.fetch_add(1, Ordering::SeqCst) + 1;
        watch.most.fetch_max(now, Ordering::SeqCst);
        Self(watch)
    }

    fn done(self) {
        let watch = self.0;
        drop(self);
        if watch.done.fetch_add(1, Ordering::SeqCst) + 1 == watch.expected {
            watch.all.notify_one();
        }
    }
}

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_is_forgotten_and_the_limit_holds() {
    let seed = std::env::var("INTERLINE_TEST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| fastrand::u64(..));
    println!("INTERLINE_TEST_SEED={seed}");
    let random = Rng::with_seed(seed);
    for (size, expected) in [(1, 2_000), (3, 4_000), (16, 8_000)] {
        let world = World::new().await;
        let watch = Arc::new(Watch {
            expected,
            ..Watch::default()
        });
        let (seen, chance) = (Arc::clone(&watch), random.clone());
        let handler = Handler::one(move |incoming: Arc<Incoming>, _| {
            let (seen, chance) = (Arc::clone(&seen), chance.clone());
            async move {
                let at_work = AtWork::begin(&seen);
                match (chance.below(16), incoming.attempt) {
                    (0..4, _) => tokio::task::yield_now().await,
                    (4, _) => tokio::time::sleep(Duration::from_micros(200)).await,
                    (5, 1) => return Outcome::retry_after(Duration::from_millis(1), "again"),
                    (6, 1) => std::panic::panic_any("it may panic"),
                    _ => {}
                }
                at_work.done();
                Outcome::done()
            }
        });
        let planned = planned_with("orders", handler, |planned| {
            planned.concurrency = u32::try_from(size).unwrap();
            // What a panic waits is the policy's to say.
            planned.handlers[0].retry.first = Duration::from_millis(1);
        });
        let runner = world.run(planned).await;
        for number in 0..expected {
            if number % 1_000 == 500 {
                runner.pause().await;
            }
            if number % 1_000 == 700 {
                runner.resume().await;
            }
            let body = number.to_string();
            world.publish("orders", &body, &[]).await;
        }
        let done = timeout(LIMIT, watch.all.notified()).await;
        assert!(
            done.is_ok(),
            "{} of {expected} with {size} at once, seed {seed}",
            watch.done.load(Ordering::SeqCst)
        );
        let drained = runner.stop(Instant::now() + LIMIT).await;
        assert_eq!(drained, Drained::default(), "seed {seed}");
        let most = watch.most.load(Ordering::SeqCst);
        assert!(most <= size, "{most} at once, not {size}, seed {seed}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_stop_in_the_middle_gives_back_what_was_not_started() {
    for _ in 0..50 {
        let world = World::new().await;
        let handled = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&handled);
        let handler = Handler::one(move |_, _| {
            let seen = Arc::clone(&seen);
            async move {
                tokio::task::yield_now().await;
                seen.fetch_add(1, Ordering::SeqCst);
                Outcome::done()
            }
        });
        let runner = world.run(planned("orders", handler)).await;
        for number in 0..200 {
            world.publish("orders", &number.to_string(), &[]).await;
        }
        runner.stop(Instant::now() + LIMIT).await;
        let left: usize = world
            .store
            .queues()
            .iter()
            .map(|queue| queue.ready + queue.in_flight)
            .sum();
        assert_eq!(handled.load(Ordering::SeqCst) + left, 200);
    }
}
