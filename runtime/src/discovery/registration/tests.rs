use std::collections::VecDeque;
use std::sync::Mutex;

use super::*;
use crate::discovery::registrar::Registering;
use crate::discovery::{Endpoint, RegistrarError};
use crate::observability::metrics::InMemoryMetrics;

const TTL: Duration = Duration::from_secs(15);

/// A backend that answers by a script and then well; it notes what it is asked, and when.
#[derive(Clone)]
struct Book(Arc<Mutex<State>>);

struct State {
    begun: Instant,
    script: VecDeque<Answer>,
    log: Vec<(Duration, &'static str)>,
}

#[derive(Clone, Debug)]
enum Answer {
    Fine,
    Fails,
    Forgot,
    /// It works, and takes so long.
    Slow(Duration),
}

impl Book {
    fn new(script: impl IntoIterator<Item = Answer>) -> Self {
        Self(Arc::new(Mutex::new(State {
            begun: Instant::now(),
            script: script.into_iter().collect(),
            log: Vec::new(),
        })))
    }

    fn log(&self) -> Vec<(Duration, &'static str)> {
        self.0.lock().unwrap().log.clone()
    }

    fn steps(&self) -> Vec<&'static str> {
        self.log().into_iter().map(|(_, step)| step).collect()
    }

    fn step(&self, name: &'static str) -> Registering {
        let this = self.clone();
        Box::pin(async move {
            let answer = this.0.lock().unwrap().script.pop_front();
            let result = match answer.unwrap_or(Answer::Fine) {
                Answer::Fine => Ok(()),
                Answer::Fails => Err(RegistrarError::Failed("away".to_owned())),
                Answer::Forgot => Err(RegistrarError::Unknown),
                Answer::Slow(wait) => {
                    sleep(wait).await;
                    Ok(())
                }
            };
            let mut state = this.0.lock().unwrap();
            let at = state.begun.elapsed();
            state.log.push((at, name));
            result
        })
    }
}

impl Registrar for Book {
    fn kind(&self) -> &'static str {
        "book"
    }

    fn ttl(&self) -> Duration {
        TTL
    }

    fn register(&self, _: Arc<ServiceInstance>) -> Registering {
        self.step("register")
    }

    fn heartbeat(&self, _: Arc<ServiceInstance>) -> Registering {
        self.step("heartbeat")
    }

    fn deregister(&self, _: Arc<ServiceInstance>) -> Registering {
        self.step("deregister")
    }
}

fn begin(book: &Book, metrics: &InMemoryMetrics) -> Registration {
    let endpoint = Endpoint::parse("http://a:1").unwrap();
    let at = NamedRegistrar {
        name: "one".into(),
        registrar: Arc::new(book.clone()),
    };
    let instance = ServiceInstance::new("orders", "orders-1", endpoint);
    Registration::begin(instance, &[at], &Rng::with_seed(7), Some(metrics))
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

#[tokio::test(start_paused = true)]
async fn it_is_registered_kept_alive_and_taken_away() {
    let (book, metrics) = (Book::new([]), InMemoryMetrics::default());
    let registration = begin(&book, &metrics);
    registration.registered(soon()).await.unwrap();
    assert_eq!(metrics.sum(REGISTERED, &[("backend", "one")]), 1.0);
    sleep(Duration::from_secs(60)).await;
    let beats = book
        .steps()
        .iter()
        .filter(|step| **step == "heartbeat")
        .count();
    // Three times in its life, or a little more often.
    assert!((12..=15).contains(&beats), "{beats}");
    registration.deregister(soon()).await;
    let log = book.log();
    assert_eq!(log[0].1, "register");
    assert_eq!(log.last().unwrap().1, "deregister");
    let status = &registration.status()[0];
    assert_eq!(status.state, RegistrationState::Gone);
    assert_eq!(metrics.sum(REGISTERED, &[]), 0.0);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(book.log().len(), log.len());
}

#[tokio::test(start_paused = true)]
async fn what_was_forgotten_is_registered_again_at_once() {
    let book = Book::new([Answer::Fine, Answer::Fine, Answer::Forgot]);
    let registration = begin(&book, &InMemoryMetrics::default());
    sleep(Duration::from_secs(30)).await;
    let log = book.log();
    let steps: Vec<_> = log.iter().map(|(_, step)| *step).take(5).collect();
    assert_eq!(
        steps,
        [
            "register",
            "heartbeat",
            "heartbeat",
            "register",
            "heartbeat"
        ]
    );
    assert!(log[3].0 - log[2].0 < Duration::from_millis(1), "{log:?}");
    assert_eq!(registration.status()[0].state, RegistrationState::Active);
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_is_away_for_long_has_lost_it() {
    // Registered at the third try; then away for long.
    let mut script = vec![Answer::Fails, Answer::Fails, Answer::Fine, Answer::Fine];
    script.extend(std::iter::repeat_n(Answer::Fails, 40));
    let book = Book::new(script);
    let registration = begin(&book, &InMemoryMetrics::default());
    let why = registration
        .registered(Instant::now() + Duration::from_millis(1))
        .await;
    assert_eq!(why.unwrap_err(), "`one`: away");
    registration.registered(soon()).await.unwrap();
    let (mut step, begun) = (registration.at[0].1.clone(), Instant::now());
    step.wait_for(|step| step.state == RegistrationState::Lost)
        .await
        .unwrap();
    // Not before others have given it up, too; and not much later.
    let lost = begun.elapsed();
    assert!(lost >= TTL && lost < TTL * 2, "{lost:?}");
    assert_eq!(registration.status()[0].error.as_deref(), Some("away"));
    step.wait_for(|step| step.state == RegistrationState::Active)
        .await
        .unwrap();
    let steps = book.steps();
    let last = steps.iter().rposition(|step| *step == "register").unwrap();
    assert!(steps[last..].len() <= 2 && last > 10, "{steps:?}");
}

#[tokio::test(start_paused = true)]
async fn a_registration_under_way_is_taken_away_after_it_came_through() {
    let wait = Duration::from_secs(3);
    let book = Book::new([Answer::Slow(wait), Answer::Fails, Answer::Fine]);
    let registration = begin(&book, &InMemoryMetrics::default());
    sleep(Duration::from_secs(1)).await;
    registration.deregister(soon()).await;
    assert_eq!(book.steps(), ["register", "deregister", "deregister"]);
    assert_eq!(registration.status()[0].state, RegistrationState::Gone);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_taken_away_is_left_after_the_deadline() {
    let script = std::iter::repeat_n(Answer::Fails, 10_000);
    let book = Book::new([Answer::Fine].into_iter().chain(script));
    let registration = begin(&book, &InMemoryMetrics::default());
    registration.registered(soon()).await.unwrap();
    let begun = Instant::now();
    registration
        .deregister(begun + Duration::from_secs(5))
        .await;
    assert_eq!(begun.elapsed(), Duration::from_secs(5));
    let state = registration.status()[0].state;
    assert_eq!(state, RegistrationState::Deregistering);
}
