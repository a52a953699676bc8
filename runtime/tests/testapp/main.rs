//! `TestApp` as a service's tests use it: every method, every assertion, and what a failure says.
#![cfg(all(feature = "testing", feature = "macros", feature = "json"))]
#![expect(
    clippy::unwrap_used,
    reason = "it is all tests, and the lint takes their helpers for something else"
)]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use interline::config::Config;
use interline::handling::PublishErrorKind;
use interline::messaging::CrashPoint;
use interline::observability::metrics;
use interline::prelude::*;
use interline::testing::TestApp;
use interline::{assert_dead_lettered, assert_not_published, assert_published};

mod apps;
mod crashes;
mod reports;
mod time;

interline::service!("billing");

#[derive(Debug, Message, Serialize, Deserialize)]
#[message(topic = "orders.placed", key = order_id, id = order_id)]
struct OrderPlaced {
    order_id: String,
    cents: u64,
}

#[derive(Debug, PartialEq, Message, Serialize, Deserialize)]
#[message(topic = "billing.charged", key = order_id, subscribers = optional)]
struct Charged {
    order_id: String,
    cents: u64,
}

#[derive(Debug, Message, Serialize, Deserialize)]
#[message(topic = "mail.sent", subscribers = optional)]
struct Sent {
    order_id: String,
}

#[derive(Debug, Failure)]
enum ChargeError {
    #[fate(dead_letter)]
    Nothing,
    #[fate(retry)]
    Unreachable,
}

impl std::fmt::Display for ChargeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Nothing => "nothing to charge",
            Self::Unreachable => "bank unreachable",
        })
    }
}

impl std::error::Error for ChargeError {}

/// What the handlers do and have seen.
#[derive(Clone, Default)]
struct World {
    failures: Arc<AtomicU32>,
    calls: Arc<Mutex<Vec<String>>>,
}

impl World {
    fn failing(times: u32) -> Self {
        let world = Self::default();
        world.failures.store(times, Ordering::SeqCst);
        world
    }

    fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }
}

#[subscriber(retry(attempts = 4, first = "1h", max = "1h"))]
async fn charge(
    order: OrderPlaced,
    world: State<World>,
    meta: Meta,
) -> Result<Charged, ChargeError> {
    let call = format!("charge {} #{}", order.order_id, meta.attempt());
    world.calls.lock().unwrap().push(call);
    if order.cents == 0 {
        return Err(ChargeError::Nothing);
    }
    let fails = |left: u32| left.checked_sub(1);
    let failures = &world.failures;
    if failures
        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, fails)
        .is_ok()
    {
        return Err(ChargeError::Unreachable);
    }
    Ok(Charged {
        order_id: order.order_id,
        cents: order.cents,
    })
}

#[subscriber]
async fn send_receipt(paid: Charged, world: State<World>) -> Sent {
    let call = format!("receipt {}", paid.order_id);
    world.calls.lock().unwrap().push(call);
    Sent {
        order_id: paid.order_id,
    }
}

/// Answers each `Ping` with another one, for ever.
#[derive(Message, Serialize, Deserialize)]
#[message(topic = "ping")]
struct Ping;

#[subscriber]
async fn echo(_ping: Ping) -> Ping {
    Ping
}

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "jobs")]
struct Job;

fn order(id: &str, cents: u64) -> OrderPlaced {
    OrderPlaced {
        order_id: id.into(),
        cents,
    }
}

async fn shop(world: &World) -> TestApp {
    TestApp::new()
        .register::<charge>()
        .register::<send_receipt>()
        .state(world.clone())
        .seed(7)
        .start()
        .await
}

#[subscriber]
async fn slow(_job: Job, world: State<World>) {
    world.calls.lock().unwrap().push("begin".into());
    tokio::time::sleep(Duration::from_secs(10)).await;
    world.calls.lock().unwrap().push("end".into());
}

/// The text of the panic of `test`.
async fn panic_of(test: impl Future<Output = ()> + Send + 'static) -> String {
    let panic = tokio::spawn(test).await.unwrap_err().into_panic();
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => (*panic.downcast::<&str>().expect("a panic with a text")).to_owned(),
    }
}
