//! What subscriptions are called on a real kind of broker: no two of them alike.

use super::*;

static LONG_TOPIC: Contract = Contract::new("LongTopic", "eu.orders", at("contracts.rs", 33));
static LONG_GROUP: Contract = Contract::new("LongGroup", "orders", at("contracts.rs", 38));
static OF_THE_DEAD: Contract = Contract::new("OfTheDead", "orders.dlq", at("contracts.rs", 43));
static ON_LONG_TOPIC: [&Contract; 1] = [&LONG_TOPIC];
static ON_LONG_GROUP: [&Contract; 1] = [&LONG_GROUP];
static ON_THE_DEAD: [&Contract; 1] = [&OF_THE_DEAD];

const HELP: &str =
    "help: give one of the two another `group` or name, or both the same topic and group";

/// Two subscribers on a broker at this address.
fn two(url: &str, first: Named, second: Named) -> Wiring {
    let subscribers = vec![
        leak(subscriber("charge", 10, first.0, first.1)),
        leak(subscriber("receipt", 20, second.0, second.1)),
    ];
    let toml = format!("[brokers.main]\nurl = '{url}'");
    let mut wiring = wiring(&toml, subscribers);
    wiring.brokers.clear();
    wiring
}

/// The messages and the options of a subscriber.
type Named = (&'static [&'static Contract], SubscriberOptions);

fn groups() -> [Named; 2] {
    let in_group = |group| UNSET.group(GroupOption::Named(group));
    [
        (&ON_LONG_TOPIC, in_group("billing")),
        (&ON_LONG_GROUP, in_group("billing.eu")),
    ]
}

#[cfg(feature = "rabbitmq")]
#[test]
fn one_queue_is_not_read_by_two_subscriptions() {
    let own = UNSET.rabbitmq(RabbitMqOptions::UNSET.queue("legacy"));
    let named = [(&ON_PLACED[..], own), (&ON_CHARGED[..], own)];
    let [first, second] = named;
    assert_eq!(
        problems(&two("amqp://localhost", first, second)),
        format!("  billing/src/handlers.rs:10  charge  has the queue `legacy` for `orders.placed` in group `billing`, and `receipt` (billing/src/handlers.rs:20) has it for `billing.charged` in group `billing`
  {HELP}")
    );
    // A name that two happen to have, and a name that is meant for dead letters.
    let [first, second] = groups();
    assert_eq!(
        problems(&two("amqp://localhost", first, second)),
        format!("  billing/src/handlers.rs:20  receipt  has the queue `billing.eu.orders` for `orders` in group `billing.eu`, and `charge` (billing/src/handlers.rs:10) has it for `eu.orders` in group `billing`
  {HELP}")
    );
    let dead = two(
        "amqp://localhost",
        (&ON_LONG_GROUP, UNSET),
        (&ON_THE_DEAD, UNSET),
    );
    assert_eq!(
        problems(&dead),
        format!("  billing/src/handlers.rs:20  receipt  has the queue `billing.orders.dlq` for `orders.dlq` in group `billing`, and `charge` (billing/src/handlers.rs:10) has it for `orders` in group `billing`
  {HELP}")
    );
}

#[cfg(feature = "memory")]
#[test]
fn what_another_kind_of_broker_is_told_does_not_count() {
    let own = UNSET
        .rabbitmq(RabbitMqOptions::UNSET.queue("legacy"))
        .redis(RedisOptions::UNSET.stream("legacy"));
    let plan = Plan::build(&two("memory://", (&ON_PLACED, own), (&ON_CHARGED, own))).unwrap();
    assert_eq!(plan.subscriptions.len(), 2);
    let [first, second] = groups();
    assert_eq!(
        problems(&two("memory://", first, second)),
        format!("  billing/src/handlers.rs:20  receipt  has the queue `billing.eu.orders` for `orders` in group `billing.eu`, and `charge` (billing/src/handlers.rs:10) has it for `eu.orders` in group `billing`
  {HELP}")
    );
}

#[cfg(feature = "redis")]
#[test]
fn one_consumer_group_is_not_read_by_two_subscriptions() {
    let own = UNSET.redis(RedisOptions::UNSET.stream("legacy"));
    assert_eq!(
        problems(&two("redis://localhost", (&ON_PLACED, own), (&ON_CHARGED, own))),
        format!("  billing/src/handlers.rs:10  charge  has the stream `legacy` as consumer group `billing` for `orders.placed` in group `billing`, and `receipt` (billing/src/handlers.rs:20) has it for `billing.charged` in group `billing`
  {HELP}")
    );
    // Groups share a stream, and streams a group.
    let [(long_topic, billing), (long_group, eu)] = groups();
    let apart = [(long_topic, billing), (long_topic, eu), (long_group, eu)];
    for pair in apart.windows(2) {
        let plan = Plan::build(&two("redis://localhost", pair[0], pair[1])).unwrap();
        assert_eq!(plan.subscriptions.len(), 2);
    }
}

#[cfg(feature = "kafka")]
#[test]
fn groups_share_a_topic_and_topics_a_group() {
    let [(long_topic, billing), (long_group, eu)] = groups();
    let apart = [(long_topic, billing), (long_topic, eu), (long_group, eu)];
    for pair in apart.windows(2) {
        let plan = Plan::build(&two("kafka://localhost", pair[0], pair[1])).unwrap();
        assert_eq!(plan.subscriptions.len(), 2);
    }
}

#[cfg(feature = "rabbitmq")]
#[test]
fn what_is_in_hand_longer_than_the_broker_allows_is_refused() {
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    let on = |more: &str, options| {
        let toml = format!("[brokers.main]\nurl = 'amqp://localhost'\n{more}");
        let mut wiring = wiring(&toml, one(&ON_PLACED, options));
        wiring.brokers.clear();
        wiring
    };
    let retry = RetryOptions::UNSET
        .first(minutes(1))
        .max(minutes(60))
        .attempts(7);
    let help = "help: lower `timeout` or `retry(..)`, or raise `consumer_timeout` on the server and in the broker's section";
    let ordered = UNSET.ordered_by(OrderedBy::Key).retry(retry);
    assert_eq!(
        problems(&on("", ordered)),
        format!("  billing/src/handlers.rs:10  charge  may have a message in hand for 1h3m30s (all its attempts and the waits between them), and broker `main` (rabbitmq) takes it back after 30m
  {help}")
    );
    // Where the broker holds what waits, only the attempts count.
    assert!(Plan::build(&on("", UNSET.retry(retry))).is_ok());
    assert!(Plan::build(&on("consumer_timeout = '2h'", ordered)).is_ok());
    let slow = UNSET.timeout(minutes(120)).retry(RetryOptions::NONE);
    assert_eq!(
        problems(&on("", slow)),
        format!("  billing/src/handlers.rs:10  charge  may have a message in hand for 2h (the attempts that follow each other within a second), and broker `main` (rabbitmq) takes it back after 30m
  {help}")
    );
    // All of them would have to take that long.
    let plan = Plan::build(&on("", UNSET.timeout(minutes(10)))).unwrap();
    let warned = warnings(&plan);
    assert!(
        warned[0].contains("may have a message in hand for"),
        "{warned:?}"
    );
    // What is acknowledged is not in hand.
    let acknowledged = slow.delivery(DeliveryMode::AtMostOnce);
    let once = SubscriberOptions {
        retry: None,
        ..acknowledged
    };
    assert!(Plan::build(&on("", once)).is_ok());
}
