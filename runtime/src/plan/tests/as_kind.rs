//! The same app on another kind of broker, with the exact text.

use super::*;
use crate::plan::KindReport;

const RABBITMQ: &str = "[brokers.main]\nurl = 'amqp://localhost'\nheartbeat = '20s'";

fn on_rabbitmq(subscribers: Vec<&'static SubscriberDescriptor>) -> Wiring {
    let mut wiring = wiring(RABBITMQ, subscribers);
    wiring.brokers.clear();
    wiring
}

/// A report without the spaces that align it.
fn told(wiring: &Wiring, kind: &str) -> String {
    let report = KindReport::of(wiring, kind).unwrap().to_string();
    let (first, rest) = report.split_once('\n').unwrap();
    format!("{first}\n{}", squeezed(rest))
}

fn several() -> Wiring {
    let own = RabbitMqOptions::UNSET.queue("legacy");
    let once = UNSET.retry(RetryOptions::NONE).dead_letter(false);
    on_rabbitmq(vec![
        leak(subscriber("regional", 10, &ON_REGIONAL, UNSET)),
        leak(subscriber(
            "charge",
            20,
            &ON_PLACED,
            UNSET.ordered_by(OrderedBy::Key),
        )),
        leak(subscriber("quote", 30, &ON_SHORT, once)),
        leak(subscriber("receipt", 40, &ON_CHARGED, UNSET.rabbitmq(own))),
    ])
}

#[test]
fn what_starts_is_told_with_what_is_done_in_another_way() {
    let report = KindReport::of(&several(), "kafka").unwrap();
    assert!(report.can_start());
    assert_eq!(
        told(&several(), "kafka"),
        "service `billing` as `kafka`: it starts
  warnings
  contracts.rs:18  Quote  has a priority, and broker `main` (kafka) has none
  changes
  broker `main`  kind  rabbitmq -> kafka
  broker `main`  a publish that nobody listens to  fails -> succeeds
  broker `main`  messages for later  to 1s, up to 97 days, durable, cannot be taken back -> to 1s, up to 36500 days, durable, cannot be taken back
  broker `main`  priorities  kept -> ignored
  handler `receipt`  `rabbitmq(..)`  applies -> does not apply
  handler `receipt`  retries wait  in delay queues of the group, one for each wait of the ladder -> in topics of the group, one for each wait of the ladder
  handler `receipt`  dead letters  in a queue of the group -> in a topic of the group
  handler `charge`  order by key  by one instance at a time -> by partition: the keys are shared out among the instances
  handler `charge`  dead letters  in a queue of the group -> in a topic of the group
  handler `regional`  retries wait  in delay queues of the group, one for each wait of the ladder -> in topics of the group, one for each wait of the ladder
  handler `regional`  dead letters  in a queue of the group -> in a topic of the group"
    );
}

#[test]
fn what_does_not_start_is_told_with_what_to_write() {
    let mut quote = subscriber("quote", 30, &ON_SHORT, UNSET.retry(RetryOptions::NONE));
    quote.replies = || true;
    let ordered = UNSET.ordered_by(OrderedBy::Key);
    let wiring = on_rabbitmq(vec![
        leak(subscriber("regional", 10, &ON_REGIONAL, ordered)),
        leak(quote),
    ]);
    let refused = |kind| {
        let report = told(&wiring, kind);
        let end = report.find("\n  changes").unwrap();
        report[..end].to_owned()
    };
    assert_eq!(
        refused("redis"),
        "service `billing` as `redis`: it does not start, 1 thing is refused
  refused
  billing/src/handlers.rs:10  regional  listens to the pattern `orders.{region}.placed`, and broker `main` (redis) has no patterns
  help: name one topic, or route it to a broker that has patterns"
    );
    assert_eq!(
        refused("redis-pubsub"),
        "service `billing` as `redis-pubsub`: it does not start, 3 things are refused
  refused
  billing/src/handlers.rs:10  regional  `ordered_by = key`, and broker `main` (redis-pubsub) keeps no order across instances
  help: write `ordered_by = key_in_process`, or use another broker
  billing/src/handlers.rs:10  regional  wants every message, and broker `main` (redis-pubsub) delivers at most once
  help: use Streams (`kind = \"redis\"`), or write `delivery = at_most_once` if messages may be lost
  billing/src/handlers.rs:30  quote  wants every message, and broker `main` (redis-pubsub) delivers at most once
  help: use Streams (`kind = \"redis\"`), or write `delivery = at_most_once` if messages may be lost"
    );
}

#[test]
fn a_move_to_the_same_kind_changes_nothing() {
    let report = KindReport::of(&several(), "rabbitmq").unwrap();
    assert_eq!(
        report.to_string(),
        "service `billing` as `rabbitmq`: it starts"
    );
}

#[test]
fn a_warning_that_the_app_has_anyway_is_no_news() {
    let once = UNSET.retry(RetryOptions::NONE).dead_letter(false);
    let toml = "[brokers.main]\nurl = 'kafka://localhost'\n[subscribers.charge]\nprefetch = 4";
    let mut wiring = wiring(toml, one(&ON_SHORT, once));
    wiring.brokers.clear();
    assert_eq!(
        told(&wiring, "redis"),
        "service `billing` as `redis`: it starts
  changes
  broker `main`  kind  kafka -> redis
  broker `main`  a publish that nobody listens to  succeeds -> fails
  broker `main`  messages for later  to 1s, up to 36500 days, durable, cannot be taken back -> to 1ms, up to 36500 days, durable, can be taken back"
    );
}

#[test]
fn a_kind_that_is_not_there_is_told_and_one_of_the_programs_own_is_made() {
    let mut wiring = several();
    let unknown = |kind| KindReport::of(&several(), kind).unwrap_err().to_string();
    assert_eq!(
        squeezed(unknown("kafak").split_once('\n').unwrap().1),
        "  app  check_as  there is no kind of broker `kafak`\n  help: did you mean `kafka`?"
    );
    // What is wrong with the app as it is comes first.
    let nowhere = leak(subscriber("lost", 50, &ON_PLACED, UNSET.broker("eu")));
    let wrong = KindReport::of(&on_rabbitmq(vec![nowhere]), "kafka").unwrap_err();
    assert!(wrong.to_string().contains("broker `eu` is not configured"));
    wiring.kinds.push((
        "nats".into(),
        Arc::new(|context, section, faults| {
            section.string("url", faults);
            Some(FakeBroker::able(&context.name, Capabilities::ALL) as Arc<dyn MessageBroker>)
        }),
    ));
    let report = KindReport::of(&wiring, "nats").unwrap();
    let changes: Vec<_> = report
        .changes
        .iter()
        .map(|change| (change.what, &*change.then))
        .collect();
    assert_eq!(
        changes,
        [
            ("kind", "fake"),
            ("messages for later", "refused"),
            ("`rabbitmq(..)`", "does not apply"),
        ]
    );
}
