//! Versions of a contract, and several types on one subscription.

use std::sync::Arc;

use interline::prelude::*;

use crate::probe::Probe;
use crate::world::{Outcome as Ending, World, cases};

cases![
    an_enum_takes_several_types,
    an_older_version_becomes_the_newer_one,
    handlers_of_several_types_share_a_subscription,
    what_is_newer_is_read_if_it_can_be_and_kept_if_not,
];

#[derive(Debug, Message, Serialize, Deserialize)]
#[message(topic = "prices", name = "Price")]
struct PriceV1 {
    cents: u64,
}

#[derive(Debug, Message, Serialize, Deserialize)]
#[message(topic = "prices", version = 2, from(1 = PriceV1))]
struct Price {
    cents: u64,
    currency: String,
}

impl From<PriceV1> for Price {
    fn from(old: PriceV1) -> Self {
        Self {
            cents: old.cents,
            currency: "EUR".to_owned(),
        }
    }
}

#[subscriber(group = "prices", retry(attempts = 3, first = "100ms"))]
async fn price(price: Price, probe: State<Probe>) {
    probe.note(format!("{} {}", price.cents, price.currency));
}

fn version(version: &'static str) -> Headers {
    [("message-type", "Price"), ("message-version", version)]
        .into_iter()
        .collect()
}

async fn an_older_version_becomes_the_newer_one(world: Arc<World>) -> Ending {
    let probe = Probe::new();
    let setup = world.app("1").register::<price>().state(probe.clone());
    let process = setup.start().await;
    // From an older release of the publisher, and from the same one.
    process.publish(&PriceV1 { cents: 1 }).await;
    probe.expect("1 EUR").await;
    let currency = "USD".to_owned();
    process.publish(&Price { cents: 2, currency }).await;
    probe.expect("2 USD").await;
    world
        .publish("prices", r#"{"cents":3}"#, version("1"))
        .await;
    probe.expect("3 EUR").await;
    process.stop().await;
    world.dead("prices", "prices", 0).await;
    Ok(())
}

async fn what_is_newer_is_read_if_it_can_be_and_kept_if_not(world: Arc<World>) -> Ending {
    let probe = Probe::new();
    let setup = world.app("1").register::<price>().state(probe.clone());
    let process = setup.start().await;
    let additive = r#"{"cents":4,"currency":"CHF","net":true}"#;
    world.publish("prices", additive, version("3")).await;
    probe.expect("4 CHF").await;
    let other = r#"{"amount":"4.00 CHF"}"#;
    world.publish("prices", other, version("3")).await;
    let letter = world.dead("prices", "prices", 1).await.remove(0);
    assert_eq!(letter.text(), other);
    assert_eq!(letter.header("x-dlq-reason"), "newer_version");
    // It was tried again: a deploy may have been under way.
    assert_eq!(letter.header("x-dlq-attempts"), "3");
    let error = letter.header("x-dlq-error");
    assert!(
        error.starts_with("version 3 of `Price` is newer than ours (2)"),
        "{error}"
    );
    // What is ours and wrong is not tried again.
    world.publish("prices", other, version("2")).await;
    let letter = world.dead("prices", "prices", 1).await.remove(0);
    assert_eq!(letter.header("x-dlq-reason"), "decode");
    assert_eq!(letter.header("x-dlq-attempts"), "1");
    probe.quiet().await;
    process.stop().await;
    Ok(())
}

#[derive(Debug, Message, Serialize, Deserialize)]
#[message(topic = "accounts", key = id)]
struct Opened {
    id: u32,
}

#[derive(Debug, Message, Serialize, Deserialize)]
#[message(topic = "accounts", key = id)]
struct Closed {
    id: u32,
}

#[derive(Debug, Messages)]
enum Account {
    Opened(Opened),
    Closed(Closed),
}

#[subscriber(group = "enum", ordered_by = key_in_process)]
async fn account(account: Account, probe: State<Probe>) {
    probe.note(match account {
        Account::Opened(Opened { id }) => format!("{id} opened"),
        Account::Closed(Closed { id }) => format!("{id} closed"),
    });
}

#[subscriber(group = "two")]
async fn opened(opened: Opened, probe: State<Probe>) {
    probe.note(format!("{} opened", opened.id));
}

#[subscriber(group = "two")]
async fn closed(closed: Closed, probe: State<Probe>) {
    probe.note(format!("{} closed", closed.id));
}

/// What is the same whether one handler takes both types or two do.
async fn dispatched(world: &World, setup: crate::world::Setup, group: &str) -> Ending {
    let probe = Probe::new();
    let process = setup.state(probe.clone()).start().await;
    process.publish(&Opened { id: 1 }).await;
    probe.expect("1 opened").await;
    process.publish(&Closed { id: 1 }).await;
    probe.expect("1 closed").await;
    let of = |name| [("message-type", name)].into_iter().collect();
    world.publish("accounts", r#"{"id":2}"#, of("Closed")).await;
    probe.expect("2 closed").await;
    // Neither, or not said: nobody guesses.
    for headers in [of("Blocked"), Headers::new()] {
        world.publish("accounts", r#"{"id":3}"#, headers).await;
        let letter = world.dead(group, "accounts", 1).await.remove(0);
        assert_eq!(letter.header("x-dlq-reason"), "no_handler");
    }
    probe.quiet().await;
    process.stop().await;
    world.until_left(group, "accounts", 0).await;
    Ok(())
}

async fn an_enum_takes_several_types(world: Arc<World>) -> Ending {
    let setup = world.app("1").register::<account>();
    dispatched(&world, setup, "enum").await
}

async fn handlers_of_several_types_share_a_subscription(world: Arc<World>) -> Ending {
    let setup = world.app("1").register::<opened>().register::<closed>();
    dispatched(&world, setup, "two").await
}
