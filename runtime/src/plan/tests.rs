use super::*;
use crate::config::Config;
use crate::handling::{Bind, Handler, OnUnknown, Outcome};
use crate::message::{Contract, Location};
use crate::messaging::{
    BatchOptions, Capabilities, ConnectionState, Group, GroupOption, OrderedBy, RabbitMqOptions,
    RetryOptions, Start, SubscriberOptions,
};
use crate::registry::{Registry, Service, ServiceIdentity, Source, SubscriberDescriptor};

mod broker;

use broker::FakeBroker;

const fn at(file: &'static str, line: u32) -> Location {
    Location {
        file,
        line,
        column: 1,
    }
}

const fn identity(name: &'static str, is_program: bool, file: &'static str) -> ServiceIdentity {
    ServiceIdentity::new(name, name, "1.2.0", name, is_program, at(file, 1))
}

static BILLING: ServiceIdentity = identity("billing", true, "billing/src/main.rs");
static ORDERS: ServiceIdentity = identity("orders", false, "orders/src/lib.rs");
static AUDIT: ServiceIdentity = identity("audit", false, "audit/src/lib.rs");

static PLACED: Contract =
    Contract::new("OrderPlaced", "orders.placed", at("contracts.rs", 3)).keyed();
static CANCELLED: Contract =
    Contract::new("OrderCancelled", "orders.placed", at("contracts.rs", 8)).keyed();
static CHARGED: Contract = Contract::new("Charged", "billing.charged", at("contracts.rs", 13));
static SHORT: Contract = Contract::new("Quote", "quotes", at("contracts.rs", 18))
    .ttl(Duration::from_secs(2))
    .priority(3);
static PACKED: Contract = Contract::new("Packed", "packed", at("contracts.rs", 23)).codec("msgpak");
static REGIONAL: Contract =
    Contract::new("Regional", "orders.{region}.placed", at("contracts.rs", 28)).keyed();

static ON_PLACED: [&Contract; 1] = [&PLACED];
static ON_CANCELLED: [&Contract; 1] = [&CANCELLED];
static ON_CHARGED: [&Contract; 1] = [&CHARGED];
static ON_SHORT: [&Contract; 1] = [&SHORT];
static ON_PACKED: [&Contract; 1] = [&PACKED];
static ON_REGIONAL: [&Contract; 1] = [&REGIONAL];
static ON_ALL: [&Contract; 3] = [&PLACED, &CANCELLED, &CHARGED];

struct Mailer;

fn bound(_: &mut Bind<'_>) -> Option<Handler> {
    Some(Handler::one(|_, _| async { Outcome::done() }))
}

fn needs_mailer(bind: &mut Bind<'_>) -> Option<Handler> {
    bind.state::<Mailer>()?;
    bound(bind)
}

const fn subscriber(
    function: &'static str,
    line: u32,
    contracts: &'static [&'static Contract],
    options: SubscriberOptions,
) -> SubscriberDescriptor {
    let source = Source::Contracts(contracts);
    let location = at("billing/src/handlers.rs", line);
    SubscriberDescriptor::new(
        function, "billing", &BILLING, source, options, bound, location,
    )
}

/// Leaks, so that a test can make records as the macros do.
fn leak(descriptor: SubscriberDescriptor) -> &'static SubscriberDescriptor {
    Box::leak(Box::new(descriptor))
}

fn one(
    contracts: &'static [&'static Contract],
    options: SubscriberOptions,
) -> Vec<&'static SubscriberDescriptor> {
    vec![leak(subscriber("charge", 10, contracts, options))]
}

fn wiring(toml: &str, subscribers: Vec<&'static SubscriberDescriptor>) -> Wiring {
    let config = Config::from_toml("interline.toml", toml).unwrap();
    let mut wiring = Wiring::new(config);
    wiring.instance = Some("here".into());
    wiring.registry = Some(Registry {
        services: vec![&BILLING],
        subscribers,
        ..Registry::default()
    });
    wiring
        .brokers
        .push(("main".into(), FakeBroker::able("main", Capabilities::ALL)));
    wiring
}

fn plan(toml: &str, subscribers: Vec<&'static SubscriberDescriptor>) -> Plan {
    Plan::build(&wiring(toml, subscribers)).unwrap()
}

/// A table without the spaces that align it.
fn squeezed(table: &str) -> String {
    let lines = table.lines().map(|line| {
        let cells = line
            .split("  ")
            .map(str::trim)
            .filter(|cell| !cell.is_empty());
        format!("  {}", cells.collect::<Vec<_>>().join("  "))
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The report of an app, without its first line and alignment.
fn problems(wiring: &Wiring) -> String {
    let report = Plan::build(wiring).unwrap_err().to_string();
    let (first, rest) = report.split_once('\n').unwrap();
    assert!(first.ends_with("(nothing was started)"), "{first}");
    squeezed(rest)
}

fn report(toml: &str, subscribers: Vec<&'static SubscriberDescriptor>) -> String {
    problems(&wiring(toml, subscribers))
}

fn warnings(plan: &Plan) -> Vec<String> {
    plan.warnings
        .iter()
        .map(|warning| {
            format!(
                "{}  {}  {}",
                warning.place, warning.subject, warning.message
            )
        })
        .collect()
}

const UNSET: SubscriberOptions = SubscriberOptions::UNSET;

#[test]
fn a_subscriber_without_options_gets_the_defaults() {
    let plan = plan("", one(&ON_PLACED, UNSET));
    assert_eq!(&*plan.service, "billing");
    assert_eq!(plan.drain_timeout, Duration::from_secs(25));
    let planned = &plan.subscriptions[0];
    assert_eq!(&*planned.subscription.label, "billing.orders.placed");
    assert_eq!(planned.subscription.group, Group::Named("billing".into()));
    assert_eq!(
        (planned.concurrency, planned.subscription.prefetch),
        (16, 32)
    );
    let handler = &planned.handlers[0];
    assert_eq!(&*handler.name, "charge");
    assert_eq!(handler.timeout, Duration::from_secs(30));
    assert_eq!(handler.retry.attempts, 5);
    assert_eq!(handler.codec.name(), "json");
    assert!(warnings(&plan).is_empty());
}

#[test]
fn every_mistake_is_in_one_sorted_report() {
    let mut mailer = subscriber("receipt", 31, &ON_CHARGED, UNSET.broker("kafka-eu"));
    mailer.bind = needs_mailer;
    let subscribers = vec![
        leak(mailer),
        leak(subscriber(
            "charge",
            12,
            &ON_CHARGED,
            UNSET.ordered_by(OrderedBy::Key),
        )),
    ];
    let toml = "[brokers.main]\nretry = { attempts = 0 }\n[subscribers.chrage]\n[run]\nonly = ['recipt', 'charge', 'receipt']";
    let error = Plan::build(&wiring(toml, subscribers)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "6 wiring problems in service `billing` (nothing was started)
  billing/src/handlers.rs:12  charge                       `ordered_by` needs a key, and `Charged` has none
                                                           help: name the field: `#[message(.., key = order_id)]`
  billing/src/handlers.rs:31  receipt                      broker `kafka-eu` is not configured (configured: main)
                                                           help: add `[brokers.kafka-eu]` to the configuration
  billing/src/handlers.rs:31  receipt                      needs `State<Mailer>`, and the app has none
                                                           help: add `.state(Mailer { .. })` to the app
  interline.toml:2:11         brokers.main.retry.attempts  must be at least 1, not 0
  interline.toml:3:14         subscribers.chrage           there is no subscriber `chrage`
                                                           help: did you mean `charge`?
  interline.toml:5:1          run.only                     names `recipt`, which is no subscriber
                                                           help: did you mean `receipt`?"
    );
    assert_eq!(format!("{error:?}"), error.to_string());
}

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
fn one_queue_is_not_read_by_two_subscriptions() {
    let options = UNSET.rabbitmq(RabbitMqOptions::UNSET.queue("legacy"));
    let subscribers = vec![
        leak(subscriber("charge", 10, &ON_PLACED, options)),
        leak(subscriber("receipt", 20, &ON_CHARGED, options)),
    ];
    assert_eq!(
        report("", subscribers),
        "  billing/src/handlers.rs:10  charge  reads the queue `legacy` for `orders.placed` in group `billing`, and `receipt` (billing/src/handlers.rs:20) reads it for `billing.charged` in group `billing`
  help: name another queue, or give both the same topic and group"
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
fn retries_end_before_the_message_expires() {
    assert_eq!(
        report("", one(&ON_SHORT, UNSET)),
        "  billing/src/handlers.rs:10  charge  retries for up to 3s, and `Quote` is worth delivering for 2s
  help: lower `retry(attempts = .., max = ..)`, or raise the message's `ttl`"
    );
}

#[test]
fn codecs_must_be_there() {
    let report = report("[brokers.main]\ncodec = 'jsn'", one(&ON_PACKED, UNSET));
    assert_eq!(
        report,
        "  contracts.rs:23  Packed  there is no codec `msgpak`
  help: codecs: json
  interline.toml:2:1  brokers.main.codec  there is no codec `jsn`
  help: did you mean `json`?"
            .replace(
                "help: codecs: json",
                if cfg!(feature = "msgpack") {
                    "help: did you mean `msgpack`?"
                } else if cfg!(feature = "protobuf") {
                    "help: codecs: json, protobuf"
                } else {
                    "help: codecs: json"
                }
            )
    );
    if cfg!(not(feature = "msgpack")) {
        let report = self::report("", one(&ON_PLACED, UNSET.codec("msgpack")));
        assert_eq!(
            report,
            "  billing/src/handlers.rs:10  charge  the codec `msgpack` is not switched on
  help: add the feature `msgpack` to `interline` in Cargo.toml"
        );
    }
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
fn options_written_by_hand_are_checked_too() {
    let retry = RetryOptions::UNSET.attempts(0).factor(0.5);
    let options = UNSET
        .concurrency(0)
        .timeout(Duration::ZERO)
        .retry(retry)
        .rate(crate::messaging::Rate::new(0, Duration::ZERO))
        .batch(BatchOptions::new(0, Duration::ZERO))
        .rabbitmq(RabbitMqOptions::UNSET.prefetch(0).max_priority(0));
    let error = Plan::build(&wiring("", one(&ON_PLACED, options))).unwrap_err();
    let messages: Vec<_> = error
        .problems()
        .iter()
        .map(|problem| &*problem.message)
        .collect();
    assert_eq!(
        messages,
        [
            "`batch(max = 0)` is no batch",
            "`concurrency` must be 1 to 4096, not 0",
            "`max_priority` must be 1 to 255",
            "`max_priority` on a quorum queue, which has no priorities of its own",
            "`prefetch` is zero, which on RabbitMQ means without limit",
            "`rate` lets nothing through",
            "`retry(attempts = 0)`: the first attempt counts too",
            "`timeout` is zero: every attempt would fail at once",
            "has `batch(..)` and takes single messages",
            "the `factor` of `retry` must be at least 1",
        ]
    );
}

#[test]
fn the_configuration_overrides_options_and_options_override_the_broker() {
    let toml = "
[brokers.main]
retry = { attempts = 9, first = '1s', max = '1m' }
dead_letter = false
topology = 'verify'
retry_ladder = ['2s']
[subscribers.charge]
concurrency = 2
timeout = '5s'
group = 'tills'
start = 'earliest'
rate = '100/s'
retry = { first = '3s' }
rabbitmq = { queue = 'tills', exchange = '' }
";
    let options = UNSET.concurrency(64).retry(RetryOptions::UNSET.attempts(4));
    let plan = plan(toml, one(&ON_PLACED, options));
    let planned = &plan.subscriptions[0];
    let subscription = &planned.subscription;
    assert_eq!((planned.concurrency, subscription.prefetch), (2, 4));
    assert_eq!(subscription.group, Group::Named("tills".into()));
    assert_eq!(subscription.start, Start::Earliest);
    assert_eq!(subscription.topology, TopologyMode::Verify);
    assert!(!subscription.dead_letter);
    assert_eq!(*subscription.ladder, [Duration::from_secs(2)]);
    assert_eq!(subscription.rabbitmq.queue.as_deref(), Some("tills"));
    assert_eq!(subscription.rabbitmq.exchange.as_deref(), Some(""));
    assert_eq!(planned.rate.map(|rate| rate.count), Some(100));
    let handler = &planned.handlers[0];
    assert_eq!(handler.timeout, Duration::from_secs(5));
    assert_eq!(handler.retry.attempts, 4);
    assert_eq!(handler.retry.first, Duration::from_secs(3));
    assert_eq!(handler.retry.max, Duration::from_secs(60));
}

#[test]
fn batches_are_fetched_twice_over() {
    let batch = subscriber("charge", 10, &ON_PLACED, UNSET).batch();
    let toml = "[subscribers.charge.batch]\nmax = 500";
    let plan = plan(toml, vec![leak(batch)]);
    let planned = &plan.subscriptions[0];
    assert_eq!(
        planned.batch,
        Some(BatchOptions::new(500, Duration::from_millis(100)))
    );
    assert_eq!(planned.subscription.prefetch, 1_000);
    assert_eq!(
        report(toml, one(&ON_PLACED, UNSET)),
        "  interline.toml:1:21  subscribers.charge.batch  is set, and the subscriber takes single messages
  help: remove it"
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

#[test]
fn what_is_found_and_not_admitted_is_a_warning() {
    let location = at("audit/src/lib.rs", 9);
    let source = Source::Topic {
        topic: "a.b",
        on_unknown: OnUnknown::Skip,
    };
    let note = leak(SubscriberDescriptor::new(
        "note", "audit", &AUDIT, source, UNSET, bound, location,
    ));
    let mut subscribers = one(&ON_PLACED, UNSET);
    subscribers.push(note);
    let plan = plan("[subscribers.note]\nconcurrency = 1", subscribers);
    assert_eq!(plan.subscriptions.len(), 1);
    assert_eq!(
        warnings(&plan),
        [
            "audit/src/lib.rs:1  audit  found in crate `audit` and not admitted: 1 subscriber not started"
        ]
    );
    assert_eq!(
        plan.warnings[0].help.as_deref(),
        Some("to run it, add `.with(audit::service())` to the app")
    );

    let mut empty = wiring("", vec![note]);
    empty.registry.as_mut().unwrap().services.clear();
    assert_eq!(
        Plan::build(&empty).unwrap_err().to_string(),
        "1 wiring problem (nothing was started)
  app  app  nothing to run; linked: crate `audit` (1 subscriber, not admitted)
            help: add `.with(audit::service())`, which also links the crate; an app that only publishes says `.publish_only()`"
    );
    empty.hosted.push(Service::new(&AUDIT));
    let plan = Plan::build(&empty).unwrap();
    assert_eq!(&*plan.service, "audit");
    assert_eq!(
        plan.subscriptions[0].handlers[0].on_unknown,
        OnUnknown::Skip
    );
}

#[test]
fn several_services_need_a_name() {
    let location = at("orders/src/lib.rs", 9);
    let source = Source::Contracts(&ON_CHARGED);
    let place = leak(SubscriberDescriptor::new(
        "place", "orders", &ORDERS, source, UNSET, bound, location,
    ));
    let mut wiring = wiring("", vec![place]);
    wiring.registry.as_mut().unwrap().services.clear();
    wiring.hosted = vec![Service::new(&ORDERS), Service::new(&AUDIT)];
    assert_eq!(
        problems(&wiring),
        "  app  service  hosts audit, orders and has no name of its own
  help: write `interline::service!(\"..\");` at the root of the program, or `[service] name = \"..\"` in the configuration"
    );
    wiring.config.set("service.name", "shop");
    let plan = Plan::build(&wiring).unwrap();
    assert_eq!(&*plan.service, "shop");
    assert_eq!(
        plan.subscriptions[0].subscription.group,
        Group::Named("orders".into())
    );
}

#[test]
fn run_only_picks_handlers() {
    let subscribers = || {
        vec![
            leak(subscriber("charge", 10, &ON_PLACED, UNSET)),
            leak(subscriber("receipt", 20, &ON_CHARGED, UNSET)),
        ]
    };
    let plan = plan(
        "[run]\nonly = ['receipt']\n[subscribers.charge]\ntimeout = '1s'",
        subscribers(),
    );
    assert_eq!(plan.subscriptions.len(), 1);
    assert_eq!(&*plan.subscriptions[0].handlers[0].name, "receipt");
    assert_eq!(
        report("[run]\nonly = []", subscribers()),
        "  interline.toml:2:1  run.only  picks no subscriber
  help: name one, or remove the key"
    );
}

#[test]
fn what_is_published_and_nobody_here_hears_is_a_warning() {
    let publishing =
        subscriber("charge", 10, &ON_PLACED, UNSET).publishes(|all| all.push(&CHARGED));
    let alone = plan("", vec![leak(publishing)]);
    assert_eq!(
        warnings(&alone),
        [
            "billing/src/handlers.rs:10  charge  `Charged` is published by charge and no subscriber here listens to `billing.charged`; publishing it fails unless another service does"
        ]
    );
    let heard = vec![
        leak(publishing),
        leak(subscriber("receipt", 20, &ON_CHARGED, UNSET)),
    ];
    assert!(warnings(&plan("", heard)).is_empty());
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
        report.contains(&format!("tests.rs:{}", written.line())),
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

#[test]
fn a_state_is_given_once() {
    let mut wiring = wiring("", one(&ON_PLACED, UNSET));
    let here = std::panic::Location::caller();
    wiring.add_state(Mailer, here);
    wiring.add_state(Mailer, here);
    let place = format!("{}:{}", here.file(), here.line());
    let error = Plan::build(&wiring).unwrap_err();
    let problem = &error.problems()[0];
    assert_eq!(problem.place.to_string(), place);
    assert_eq!(problem.subject, "State<Mailer>");
    assert_eq!(
        problem.message,
        "is given twice; a state is found by its type"
    );
}

#[test]
fn the_banner_says_what_was_decided() {
    let ordered = UNSET
        .concurrency(8)
        .ordered_by(OrderedBy::Key)
        .timeout(Duration::from_secs(10))
        .retry(
            RetryOptions::UNSET
                .attempts(4)
                .first(Duration::from_millis(250)),
        );
    let broadcast = UNSET
        .group(GroupOption::EachInstance)
        .start(Start::Earliest)
        .dead_letter(false)
        .retry(RetryOptions::NONE);
    let subscribers = vec![
        leak(subscriber("charge", 10, &ON_PLACED, ordered)),
        leak(subscriber("refresh_prices", 20, &ON_CHARGED, broadcast)),
    ];
    let mut wiring = wiring("[brokers.main]\nurl = 'fake://u:canary@h'", subscribers);
    let memory = Capabilities {
        durable: false,
        ..Capabilities::ALL
    };
    wiring
        .brokers
        .push(("side".into(), FakeBroker::able("side", memory)));
    let plan = Plan::build(&wiring).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        PlanReport::new(&plan).to_string(),
        format!("interline {version}: service `billing` 1.2.0, instance here
  broker   main            fake fake://u:***@h, topology apply
  broker   side            fake, in this process: what it holds does not outlive it
  handler  refresh_prices  `billing.charged` on main, each instance; 16 at once; timeout 30s; one attempt; dead letters dropped; from the earliest message
  handler  charge          `orders.placed` on main, group billing; in order by key, 8 lanes; timeout 10s; 4 attempts (250ms 500ms 1s); dead letters kept")
    );
    assert_eq!(
        plan.brokers[0].broker.health_check().state,
        ConnectionState::Disconnected
    );
}
