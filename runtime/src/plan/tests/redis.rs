//! Brokers that deliver at most once.

use super::*;

#[test]
fn at_most_once_is_said_where_a_broker_has_nothing_else() {
    let able = Capabilities {
        at_most_once_only: true,
        ..Capabilities::NONE
    };
    let on = |options| {
        let mut wiring = wiring("", one(&ON_PLACED, options));
        wiring.brokers = vec![("main".into(), FakeBroker::able("main", able))];
        wiring
    };
    assert_eq!(
        problems(&on(UNSET)),
        "  billing/src/handlers.rs:10  charge  wants every message, and broker `main` (fake) delivers at most once
  help: use Streams (`kind = \"redis\"`), or write `delivery = at_most_once` if messages may be lost"
    );
    let at_most_once = UNSET.delivery(DeliveryMode::AtMostOnce);
    let plan = Plan::build(&on(at_most_once)).unwrap();
    let planned = &plan.subscriptions[0];
    assert_eq!(planned.ack, crate::messaging::Ack::OnReceive);
    assert_eq!(planned.handlers[0].retry.attempts, 1);
    assert!(!planned.subscription.dead_letter);
    let both = at_most_once.retry(RetryOptions::UNSET.attempts(3));
    assert_eq!(
        problems(&on(both)),
        "  billing/src/handlers.rs:10  charge  `delivery = at_most_once` beside `retry`, `dead_letter` or `ack`
  help: remove them: the message is acknowledged as it arrives, never repeated and never kept"
    );
    // Nor does the configuration say so in silence.
    let toml = "[subscribers.charge]\nretry = { attempts = 3 }\ndead_letter = true";
    let mut configured = wiring(toml, one(&ON_PLACED, at_most_once));
    configured.brokers = vec![("main".into(), FakeBroker::able("main", able))];
    assert_eq!(
        problems(&configured),
        "  interline.toml:2:1  subscribers.charge.retry  is set, and the subscriber has `delivery = at_most_once`
  help: remove them: the message is acknowledged as it arrives, never repeated and never kept
  interline.toml:3:1  subscribers.charge.dead_letter  is set, and the subscriber has `delivery = at_most_once`
  help: remove them: the message is acknowledged as it arrives, never repeated and never kept"
    );
}

#[test]
fn a_reply_wants_a_broker_that_carries_it() {
    let mut quote = subscriber("quote", 30, &ON_PLACED, UNSET);
    quote.replies = || true;
    let mut wiring = wiring("", vec![leak(quote)]);
    wiring.brokers = vec![("main".into(), FakeBroker::able("main", Capabilities::NONE))];
    assert_eq!(
        problems(&wiring),
        "  billing/src/handlers.rs:30  quote  answers with a reply, and broker `main` (fake) carries none
  help: route its topic to a broker that does, or publish the answer as a message"
    );
}
