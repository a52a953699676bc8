//! Subscriptions: what shares one, and what must not.

use super::*;

#[test]
fn the_same_messages_twice_in_one_group_are_a_mistake_also_across_crates() {
    let source = Source::Contracts(&ON_PLACED);
    let options = UNSET.group(GroupOption::Named("billing"));
    let location = at("orders/src/lib.rs", 7);
    let other =
        SubscriberDescriptor::new("copy", "orders", &ORDERS, source, options, bound, location);
    let mut subscribers = one(&ON_PLACED, UNSET);
    subscribers.push(leak(other));
    let mut wiring = wiring("", subscribers);
    wiring.hosted.push(Service::new(&ORDERS));
    assert_eq!(
        problems(&wiring),
        "  orders/src/lib.rs:7  copy  takes `OrderPlaced` of `orders.placed` in group `billing`, and so does `charge` (billing/src/handlers.rs:10)
  help: give one of the two another `group`"
    );
}

#[test]
fn several_types_of_one_topic_and_group_are_one_subscription() {
    let subscribers = vec![
        leak(subscriber("charge", 10, &ON_PLACED, UNSET.concurrency(4))),
        leak(subscriber("refund", 20, &ON_CANCELLED, UNSET)),
    ];
    let plan = plan("", subscribers);
    assert_eq!(plan.subscriptions.len(), 1);
    let planned = &plan.subscriptions[0];
    let names: Vec<_> = planned
        .handlers
        .iter()
        .map(|handler| &*handler.name)
        .collect();
    assert_eq!(names, ["charge", "refund"]);
    assert_eq!((planned.concurrency, planned.subscription.prefetch), (4, 8));
}

#[test]
fn an_enum_over_several_topics_is_in_several_subscriptions() {
    let plan = plan("", one(&ON_ALL, UNSET));
    let topics: Vec<_> = plan
        .subscriptions
        .iter()
        .map(|planned| {
            let contracts = planned.handlers[0].contracts.iter();
            let names: Vec<_> = contracts.map(|contract| contract.name).collect();
            (planned.subscription.topic.as_str(), names)
        })
        .collect();
    assert_eq!(
        topics,
        [
            ("billing.charged", vec!["Charged"]),
            ("orders.placed", vec!["OrderPlaced", "OrderCancelled"])
        ]
    );
}

#[test]
fn handlers_of_one_subscription_must_agree() {
    let refund = UNSET
        .concurrency(8)
        .start(Start::Earliest)
        .rabbitmq(RabbitMqOptions::UNSET.queue("b"));
    let charge = UNSET
        .concurrency(4)
        .rabbitmq(RabbitMqOptions::UNSET.queue("a"));
    let subscribers = vec![
        leak(subscriber("charge", 10, &ON_PLACED, charge)),
        leak(subscriber("refund", 20, &ON_CANCELLED, refund)),
    ];
    let line = |what: &str| {
        format!(
            "  billing/src/handlers.rs:20  refund  shares the subscription to `orders.placed` in group `billing` with `charge` (billing/src/handlers.rs:10), and they differ in `{what}`
  help: make them agree, or give one of the two another `group`"
        )
    };
    let all = [line("concurrency"), line("rabbitmq"), line("start")];
    assert_eq!(report("", subscribers), all.join("\n"));

    let batch = subscriber(
        "refund",
        20,
        &ON_CANCELLED,
        UNSET.batch(BatchOptions::new(9, Duration::ZERO)),
    )
    .batch();
    let subscribers = vec![
        leak(subscriber("charge", 10, &ON_PLACED, UNSET)),
        leak(batch),
    ];
    assert_eq!(
        report("", subscribers),
        "  billing/src/handlers.rs:20  refund  takes batches of `orders.placed` in group `billing`, which it shares with `charge` (billing/src/handlers.rs:10)
  help: a batch subscriber is alone in its subscription: give it another `group`"
    );
}

#[test]
fn two_subscribers_of_a_service_have_two_names() {
    let subscribers = vec![
        leak(subscriber("charge", 10, &ON_PLACED, UNSET)),
        leak(subscriber("other", 20, &ON_CHARGED, UNSET.name("charge"))),
    ];
    assert_eq!(
        report("", subscribers),
        "  billing/src/handlers.rs:20  charge  another subscriber of service `billing` has this name: billing/src/handlers.rs:10
  help: give one of the two a `name` of its own"
    );
}

#[test]
fn segments_must_be_in_the_topic() {
    let found = subscriber("charge", 10, &ON_REGIONAL, UNSET).segments(&["regoin"]);
    assert_eq!(
        report("", vec![leak(found)]),
        "  billing/src/handlers.rs:10  charge  takes the segment `regoin`, which `orders.{region}.placed` has not
  help: did you mean `region`?"
    );
    let found = subscriber("charge", 10, &ON_PLACED, UNSET).segments(&["region"]);
    assert_eq!(
        report("", vec![leak(found)]),
        "  billing/src/handlers.rs:10  charge  takes the segment `region`, which `orders.placed` has not
  help: write `{region}` as a part of the topic"
    );
}

#[test]
fn a_topic_known_at_run_time_is_checked_and_subscribed() {
    let mut wiring = wiring("", one(&ON_PLACED, UNSET));
    let written = std::panic::Location::caller();
    let descriptor = wiring.registry.as_ref().unwrap().subscribers[0];
    for topic in ["tenants.acme", "no good"] {
        let topic = topic.to_owned();
        wiring.assigned.push(Assigned {
            topic,
            descriptor,
            written,
        });
    }
    let report = problems(&wiring);
    assert!(
        report.contains(&format!("subscriptions.rs:{}", written.line())),
        "{report}"
    );
    assert!(
        report.ends_with(
            "charge  topic `no good` holds ` `; only letters, digits, `.`, `-` and `_` are allowed"
        ),
        "{report}"
    );
    wiring.assigned.pop();
    let plan = Plan::build(&wiring).unwrap();
    let topics: Vec<_> = plan
        .subscriptions
        .iter()
        .map(|planned| planned.subscription.topic.as_str())
        .collect();
    assert_eq!(topics, ["orders.placed", "tenants.acme"]);
}
