//! Which broker, and what it is asked for.

use super::*;

#[test]
fn a_broker_must_be_able_to_do_what_is_asked() {
    let mut wiring = wiring("", one(&ON_REGIONAL, UNSET.ordered_by(OrderedBy::Key)));
    wiring.brokers = vec![("main".into(), FakeBroker::able("main", Capabilities::NONE))];
    assert_eq!(
        problems(&wiring),
        "  billing/src/handlers.rs:10  charge  `ordered_by = key`, and broker `main` (fake) keeps no order across instances
  help: write `ordered_by = key_in_process`, or use another broker
  billing/src/handlers.rs:10  charge  listens to the pattern `orders.{region}.placed`, and broker `main` (fake) has no patterns
  help: name one topic, or route it to a broker that has patterns"
    );
}

#[test]
fn what_a_broker_ignores_and_a_prefetch_that_is_too_small_are_warnings() {
    let once = UNSET.retry(RetryOptions::NONE);
    let toml = "[subscribers.charge]\nprefetch = 4";
    let mut wiring = wiring(toml, one(&ON_SHORT, once));
    wiring.brokers = vec![("main".into(), FakeBroker::able("main", Capabilities::NONE))];
    let plan = Plan::build(&wiring).unwrap();
    assert_eq!(
        warnings(&plan),
        [
            "billing/src/handlers.rs:10  charge  fetches 4 messages ahead, and `concurrency` is 16",
            "contracts.rs:18  Quote  has a priority, and broker `main` (fake) has none",
            "contracts.rs:18  Quote  has a time to live, and broker `main` (fake) has none",
        ]
    );
}

#[cfg(feature = "rabbitmq")]
#[test]
fn a_start_that_a_broker_cannot_give_is_a_warning() {
    let toml = "[brokers.main]\nurl = 'amqp://localhost'\n[subscribers.charge]\nstart = 'earliest'";
    let mut wiring = wiring(toml, one(&ON_PLACED, UNSET));
    wiring.brokers.clear();
    let plan = Plan::build(&wiring).unwrap();
    assert_eq!(
        warnings(&plan),
        [
            "billing/src/handlers.rs:10  charge  has `start = earliest`, which is the same as `new` on \
             RabbitMQ: a queue holds nothing from before it was made"
        ]
    );
}

#[test]
fn routes_choose_the_broker_unless_something_nearer_does() {
    let toml = "
[routes]
'orders.*' = 'audit'
'a*' = 'audit'
'x.*' = 'adit'
";
    let mut wrong = wiring(toml, one(&ON_PLACED, UNSET));
    let audit = FakeBroker::able("audit", Capabilities::ALL);
    wrong.brokers.push(("audit".into(), audit.clone()));
    assert_eq!(
        problems(&wrong),
        "  interline.toml:4:1  routes.\"a*\"  has a `*` that is not a whole segment
  help: write for example `\"audit.*\"`
  interline.toml:5:1  routes.\"x.*\"  broker `adit` is not configured (configured: audit, main)
  help: did you mean `audit`?"
    );
    let broker_of = |options, toml| {
        let mut wiring = wiring(toml, one(&ON_PLACED, options));
        wiring.brokers.push(("audit".into(), audit.clone()));
        Plan::build(&wiring).unwrap().subscriptions[0]
            .broker
            .to_string()
    };
    let routed = "[routes]\n'orders.*' = 'audit'";
    assert_eq!(broker_of(UNSET, routed), "audit");
    assert_eq!(broker_of(UNSET.broker("main"), routed), "main");
    let over = "[routes]\n'orders.*' = 'audit'\n[subscribers.charge]\nbroker = 'audit'";
    assert_eq!(broker_of(UNSET.broker("main"), over), "audit");
}

#[test]
fn kinds_and_urls_of_brokers_are_checked() {
    let toml = "
[brokers.a]
kind = 'rabitmq'
[brokers.b]
url = 'ampq://u:canary@h'
[brokers.c]
codec = 'json'
[brokers.d]
url = { env = 'URL' }
[brokers.f]
kind = 'memory'
colour = 'blue'
";
    let report = report(toml, one(&ON_PLACED, UNSET));
    let expected = "  interline.toml:3:1  brokers.a.kind  there is no kind of broker `rabitmq`
  help: did you mean `rabbitmq`?
  interline.toml:5:1  brokers.b.url  no kind of broker has URLs that begin with `ampq:`
  help: did you mean `amqp`?
  interline.toml:6:10  brokers.c.url  is missing, and so is `kind`
  help: write `url = \"amqp://..\"`, or `kind = \"memory\"`
  interline.toml:8:10  brokers.d.kind  is missing; the URL is a secret that is not read yet
  help: write for example `kind = \"rabbitmq\"`
  interline.toml:12:1  brokers.f.colour  unknown key `colour` in [brokers.f]";
    assert_eq!(report, expected);
}

#[test]
#[cfg(not(feature = "rabbitmq"))]
fn a_kind_whose_feature_is_off_says_which_to_add() {
    let toml = "[brokers.main]\nurl = 'amqp://u:canary@h'\nvhost = 'x'";
    let mut wiring = wiring(toml, one(&ON_PLACED, UNSET));
    wiring.brokers.clear();
    assert_eq!(
        problems(&wiring),
        "  interline.toml:2:1  brokers.main.url  brokers of kind `rabbitmq` are not switched on in this program
  help: add the feature `rabbitmq` to `interline` in Cargo.toml"
    );
}

#[test]
fn a_kind_of_the_programs_own_is_made_by_its_factory() {
    let toml = "[brokers.main]\nurl = 'nats://h'\nstream = 'x'";
    let mut wiring = wiring(toml, one(&ON_PLACED, UNSET));
    wiring.brokers.clear();
    wiring.kinds.push((
        "nats".into(),
        Arc::new(|context, section, faults| {
            assert_eq!(&*context.name, "main");
            assert_eq!(section.string("stream", faults).as_deref(), Some("x"));
            Some(FakeBroker::able("main", Capabilities::ALL) as Arc<dyn MessageBroker>)
        }),
    ));
    let plan = Plan::build(&wiring).unwrap();
    assert_eq!(plan.brokers[0].url.as_deref(), Some("nats://h"));
}
