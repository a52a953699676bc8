use super::*;
use crate::config::Config;
use crate::handling::{Bind, Handler, OnUnknown, Outcome};
use crate::message::{Contract, Location};
use crate::messaging::{
    BatchOptions, Capabilities, ConnectionState, DeliveryMode, Group, GroupOption, OrderedBy,
    RabbitMqOptions, RedisOptions, RetryOptions, Start, SubscriberOptions,
};
use crate::registry::{Registry, Service, ServiceIdentity, Source, SubscriberDescriptor};

mod admission;
#[cfg(all(feature = "kafka", feature = "rabbitmq", feature = "redis"))]
mod as_kind;
mod broker;
mod brokers;
mod names;
mod options;
mod redis;
mod subscriptions;

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
