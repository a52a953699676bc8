//! What the macros make does what it says: each form of payload, argument and result.
#![cfg(all(feature = "macros", feature = "json"))]
#![allow(missing_docs, reason = "the types of a test")]

use std::sync::Arc;
use std::time::Duration;

use interline::clock::{Rng, SystemClock};
use interline::handling::{
    Bind, BoxFuture, Handler, OnUnknown, PublishPort, Reason, Receipt, Scope, States,
    SubscriberContext,
};
use interline::message::{
    CodecRef, Codecs, Encoded, Incoming, Origin, Outgoing, Place, TopicPattern,
};
use interline::messaging::{Ack, GroupOption, OrderedBy, Rate, RetryOptions, Start};
use interline::prelude::*;
use interline::registry::{Registry, Source, Subscriber};

interline::service!("billing");

#[derive(Debug, PartialEq, Message, Serialize, Deserialize)]
#[message(topic = "orders.{region}.placed", key = order_id, id = order_id, version = 2, ttl = "1h",
          priority = 5, subscribers = optional, name = "placed", from(1 = OldOrder))]
pub struct OrderPlaced {
    pub order_id: u64,
    pub region: String,
}

#[derive(Debug, Message, Serialize, Deserialize)]
#[message(topic = "orders.old")]
pub struct OldOrder {
    pub order_id: u64,
}

impl From<OldOrder> for OrderPlaced {
    fn from(old: OldOrder) -> Self {
        Self {
            order_id: old.order_id,
            region: "old".into(),
        }
    }
}

#[derive(Debug, PartialEq, Message, Serialize, Deserialize)]
#[message(topic = "billing.charged", key = 0)]
pub struct Charged(pub u64);

#[derive(Debug, PartialEq, Messages)]
pub enum Either {
    Placed(OrderPlaced),
    Charged(Charged),
}

#[derive(Debug, PartialEq, Messages)]
pub enum Only {
    Charged(Charged),
}

#[derive(Debug, thiserror::Error, Failure)]
pub enum ChargeError {
    #[error("bank unreachable")]
    #[fate(retry)]
    Network(#[source] std::io::Error),
    #[error("later")]
    #[fate(retry(after = wait))]
    Busy { wait: Duration },
    #[error("soon")]
    #[fate(retry(after = "5s"))]
    Soon,
    #[error("perhaps")]
    #[fate(retry(after = 0))]
    Perhaps(Option<Duration>),
    #[error("refused")]
    #[fate(dead_letter)]
    Refused,
    #[error("done before")]
    #[fate(discard)]
    Duplicate,
    #[error("closed")]
    #[fate(pause = "30s")]
    Closed,
}

#[derive(Debug, thiserror::Error, Failure)]
#[error("down")]
#[fate(pause = "1s")]
pub struct Down;

struct Bank(&'static str);

#[subscriber(name = "charge.card", group = "cards", concurrency = 8, ordered_by = key, timeout = "10s",
             retry(attempts = 6, max = "30s"), start = earliest, rate = "5/250ms", on_unknown = skip)]
async fn charge(
    order: &OrderPlaced,
    bank: State<Bank>,
    #[header("x-amount")] amount: u64,
    #[header("x-tenant")] tenant: Option<String>,
    #[segment] region: String,
    #[segment("region")] again: Option<String>,
    out: Out<Charged>,
) -> Result<Charged, ChargeError> {
    if tenant.as_deref() == Some("blocked") {
        return Err(ChargeError::Refused);
    }
    assert_eq!(
        (bank.0, &region, again.as_ref()),
        ("bank", &order.region, Some(&region))
    );
    out.send(Charged(amount))
        .map_err(|_| ChargeError::Refused)?;
    Ok(Charged(order.order_id))
}

#[subscriber(group = each_instance, retry = none)]
async fn either(message: Either) -> Outcome {
    Outcome::retry(format!("{message:?}"))
}

#[subscriber(group = "only", ack = on_receive)]
async fn only(message: Only) -> Outcome {
    Outcome::retry(format!("{message:?}"))
}

#[subscriber(group = "optional")]
async fn optional(message: Option<Charged>) -> Outcome {
    Outcome::retry(format!("{message:?}"))
}

#[subscriber(topic = "foreign.{zone}", on_unknown = skip)]
async fn foreign(words: Vec<String>, #[segment] zone: u8) -> Outcome {
    Outcome::retry(format!("{words:?} {zone}"))
}

#[subscriber(topic = "raw", on_unknown = dead_letter)]
async fn raw(message: Raw) -> Outcome {
    Outcome::retry(format!("{:?}", message.body()))
}

#[subscriber(group = "batch", batch(max = 10, wait = "50ms"))]
async fn batch(many: Batch<Charged>, _bank: State<Bank>, out: Out<OrderPlaced>) -> BatchOutcome {
    let order = OrderPlaced {
        order_id: 1,
        region: "eu".into(),
    };
    out.send(order).expect("the message is valid");
    many.all_done_except([1], &Outcome::dead_letter("second"))
}

#[subscriber(group = "rejecting", batch(max = 10, wait = "50ms"))]
async fn rejecting(many: Batch<Charged>, _never: Never) {
    drop(many);
}

struct Never;

impl interline::handling::Extract for Never {
    type Prepared = ();

    fn prepare(_: &mut Bind<'_>) -> Option<()> {
        Some(())
    }

    fn extract(
        (): &(),
        _: &Arc<Incoming>,
        _: &Scope,
    ) -> Result<Self, interline::handling::Rejection> {
        Err(interline::handling::Rejection::dead_letter("never"))
    }
}

struct Port;

impl PublishPort for Port {
    fn codec(
        &self,
        _: &str,
        _: Option<&str>,
        named: Option<&str>,
    ) -> Result<CodecRef, PublishError> {
        Ok(codec(named.unwrap_or("json")))
    }

    fn publish(&self, _: Outgoing) -> BoxFuture<'_, Result<Receipt, PublishError>> {
        Box::pin(async { unreachable!("outcomes are looked at, not published") })
    }
}

fn codec(name: &str) -> CodecRef {
    let codecs = Codecs::built_in();
    codecs
        .by_name(name)
        .expect("the codec is switched on")
        .clone()
}

fn incoming(topic: &str, body: &str, headers: &[(&'static str, &'static str)]) -> Arc<Incoming> {
    let headers: Headers = headers.iter().copied().collect();
    let place = Place::Memory {
        queue: "q".into(),
        offset: 1,
    };
    let origin = Origin::new("main".into(), place);
    Arc::new(Incoming::new(
        topic.into(),
        body.to_owned().into(),
        headers,
        origin,
    ))
}

fn scope<S: Subscriber>(input: &Arc<Incoming>) -> Scope {
    let descriptor = S::DESCRIPTOR;
    let (template, on_unknown) = match descriptor.source {
        Source::Contracts(contracts) => (contracts[0].topic, OnUnknown::DeadLetter),
        Source::Topic { topic, on_unknown } => (topic, on_unknown),
        _ => unreachable!("there are two kinds of source"),
    };
    let publisher = Publisher::new(
        Arc::new(Port),
        "billing".into(),
        Arc::new(SystemClock),
        Rng::with_seed(1),
    );
    let pattern = TopicPattern::parse(template).expect("a template of a subscriber");
    let context = SubscriberContext::new(
        descriptor.name().into(),
        pattern,
        Arc::new(Codecs::built_in()),
        codec("json"),
        publisher,
    );
    Scope::new(
        Arc::new(context.with_on_unknown(on_unknown)),
        Arc::clone(input),
        tokio::time::Instant::now() + Duration::from_secs(1),
        Cancel::new(),
    )
}

fn bind<S: Subscriber>() -> Handler {
    let mut states = States::default();
    states.insert(Bank("bank"));
    (S::DESCRIPTOR.bind)(&mut Bind::new(&states)).expect("everything is there")
}

async fn one<S: Subscriber>(input: Arc<Incoming>) -> Outcome {
    let scope = scope::<S>(&input);
    match bind::<S>() {
        Handler::One(run) => run(input, scope).await,
        other => panic!("{other:?}"),
    }
}

async fn many<S: Subscriber>(input: Vec<Arc<Incoming>>) -> Vec<Outcome> {
    let scope = scope::<S>(&input[0]);
    match bind::<S>() {
        Handler::Batch(run) => run(input, scope).await,
        other => panic!("{other:?}"),
    }
}

/// The text of a handler that answers by `Outcome::retry`, or of what was refused before it.
async fn said<S: Subscriber>(input: Arc<Incoming>) -> String {
    let failed = one::<S>(input)
        .await
        .failed
        .expect("the handler fails on purpose");
    failed.text
}

const ORDER: &str = r#"{"order_id":7,"region":"eu"}"#;

#[test]
fn contracts_are_as_written() {
    let contract = OrderPlaced::CONTRACT;
    assert_eq!(
        (contract.name, contract.topic),
        ("placed", "orders.{region}.placed")
    );
    assert_eq!(
        (contract.version, contract.keyed, contract.codec),
        (2, true, None)
    );
    assert_eq!(contract.ttl, Some(Duration::from_secs(3_600)));
    assert_eq!(
        (contract.priority, contract.subscribers_optional),
        (Some(5), true)
    );
    assert!(contract.location.file.ends_with("macros.rs"));
    let order = OrderPlaced {
        order_id: 7,
        region: "eu".into(),
    };
    assert_eq!(order.topic().as_deref(), Ok("orders.eu.placed"));
    assert_eq!(
        (order.key().as_deref(), order.id().as_deref()),
        (Some("7"), Some("7"))
    );
    let wrong = OrderPlaced {
        order_id: 7,
        region: "a.b".into(),
    };
    assert!(wrong.topic().is_err());
    assert_eq!(Charged(3).key().as_deref(), Some("3"));
    assert_eq!((Charged(3).id(), Charged::CONTRACT.name), (None, "Charged"));
}

#[test]
fn an_older_version_becomes_the_newer_one() {
    let decode = |body: &str, version: &'static str| {
        let (body, headers): (_, Headers) = (
            body.to_owned().into(),
            [("message-version", version)].into_iter().collect(),
        );
        OrderPlaced::decode(Encoded::new(&codec("json"), &body, &headers, "t"))
    };
    let old = decode(r#"{"order_id":7}"#, "1").expect("version 1 is known");
    assert_eq!(old.region, "old");
    assert!(decode(r#"{"order_id":7}"#, "2").is_err());
    assert_eq!(decode(ORDER, "2").expect("version 2").region, "eu");
}

#[test]
fn failures_say_what_becomes_of_the_message() {
    let five = Some(Duration::from_secs(5));
    let lasting = Duration::from_secs(30);
    let io = || std::io::Error::other("reset");
    let cases: [(ChargeError, Fate, &str, &str); 8] = [
        (
            ChargeError::Network(io()),
            Fate::Retry { after: None },
            "Network",
            "bank unreachable: reset",
        ),
        (
            ChargeError::Busy {
                wait: Duration::from_secs(5),
            },
            Fate::Retry { after: five },
            "Busy",
            "later",
        ),
        (
            ChargeError::Soon,
            Fate::Retry { after: five },
            "Soon",
            "soon",
        ),
        (
            ChargeError::Perhaps(five),
            Fate::Retry { after: five },
            "Perhaps",
            "perhaps",
        ),
        (
            ChargeError::Perhaps(None),
            Fate::Retry { after: None },
            "Perhaps",
            "perhaps",
        ),
        (ChargeError::Refused, Fate::DeadLetter, "Refused", "refused"),
        (
            ChargeError::Duplicate,
            Fate::Discard,
            "Duplicate",
            "done before",
        ),
        (
            ChargeError::Closed,
            Fate::Pause { lasting },
            "Closed",
            "closed",
        ),
    ];
    for (error, fate, name, text) in cases {
        assert_eq!(error.fate(), fate);
        assert_eq!(error.error_type(), format!("ChargeError::{name}"));
        assert_eq!(Failure::text(&error), text);
    }
    let lasting = Duration::from_secs(1);
    assert_eq!(Down.fate(), Fate::Pause { lasting });
    assert_eq!(Down.error_type(), "Down");
}

#[test]
fn options_reach_the_registry() {
    let charge = charge::DESCRIPTOR;
    assert_eq!((charge.name(), charge.function), ("charge.card", "charge"));
    assert_eq!(
        (charge.module_path, charge.service.name),
        ("macros", "billing")
    );
    assert_eq!(charge.segments, ["region", "region"]);
    let options = charge.options;
    assert_eq!(options.group, GroupOption::Named("cards"));
    assert_eq!(
        (options.concurrency, options.ordered_by),
        (Some(8), Some(OrderedBy::Key))
    );
    assert_eq!(options.timeout, Some(Duration::from_secs(10)));
    let retry = RetryOptions::UNSET.attempts(6).max(Duration::from_secs(30));
    assert_eq!(options.retry, Some(retry));
    assert_eq!(options.start, Some(Start::Earliest));
    assert_eq!(options.rate, Some(Rate::new(5, Duration::from_millis(250))));
    assert_eq!(options.on_unknown, Some(OnUnknown::Skip));
    assert_eq!(either::DESCRIPTOR.options.retry, Some(RetryOptions::NONE));
    assert_eq!(either::DESCRIPTOR.options.group, GroupOption::EachInstance);
    assert_eq!(only::DESCRIPTOR.options.ack, Some(Ack::OnReceive));
    assert!(batch::DESCRIPTOR.batch && !charge.batch);
    let mut published = Vec::new();
    (charge.publishes)(&mut published);
    assert_eq!(published, [Charged::CONTRACT]);
    let registry = Registry::linked();
    assert_eq!(
        (registry.services.len(), registry.subscribers.len()),
        (1, 8)
    );
    assert_eq!(registry.services[0], service().identity());
    assert_eq!(service().identity().crate_name, "macros");
    assert!(!service().identity().is_program);
}

#[test]
fn everything_that_is_missing_is_noted() {
    let states = States::default();
    let mut bind = Bind::new(&states);
    assert!((charge::DESCRIPTOR.bind)(&mut bind).is_none());
    assert_eq!(bind.into_faults().len(), 1);
}

#[tokio::test]
async fn arguments_are_taken_and_the_result_is_published_after_what_was_sent() {
    let topic = "orders.eu.placed";
    let outcome = one::<charge>(incoming(topic, ORDER, &[("x-amount", "12")])).await;
    assert_eq!((outcome.fate, outcome.failed), (Fate::Done, None));
    let bodies: Vec<_> = outcome
        .outgoing
        .iter()
        .map(|message| &message.body[..])
        .collect();
    assert_eq!(bodies, [b"12".as_slice(), b"7"]);

    let outcome = one::<charge>(incoming(topic, ORDER, &[])).await;
    let failed = outcome.failed.expect("the header is missing");
    assert_eq!(
        (outcome.fate, failed.reason),
        (Fate::DeadLetter, Reason::Decode)
    );
    assert_eq!(failed.text, "the header `x-amount` is missing");

    let headers = [("x-amount", "1"), ("x-tenant", "blocked")];
    let outcome = one::<charge>(incoming(topic, ORDER, &headers)).await;
    let failed = outcome.failed.expect("the tenant is blocked");
    assert_eq!(
        (outcome.fate, failed.reason),
        (Fate::DeadLetter, Reason::Rejected)
    );
    assert_eq!(
        (&*failed.error_type, &*failed.text),
        ("ChargeError::Refused", "refused")
    );

    let outcome = one::<charge>(incoming(topic, "{}", &[])).await;
    assert_eq!(
        outcome.failed.map(|failed| failed.reason),
        Some(Reason::Decode)
    );
}

#[tokio::test]
async fn several_types_are_told_apart_by_their_name() {
    let placed = incoming("orders.eu.placed", ORDER, &[("message-type", "placed")]);
    assert_eq!(
        said::<either>(placed).await,
        "Placed(OrderPlaced { order_id: 7, region: \"eu\" })"
    );
    let charged = incoming("billing.charged", "3", &[("message-type", "Charged")]);
    assert_eq!(said::<either>(charged).await, "Charged(Charged(3))");
    let other = one::<either>(incoming("t", "3", &[("message-type", "Other")])).await;
    assert_eq!(
        other.failed.map(|failed| failed.reason),
        Some(Reason::NoHandler)
    );
    let none = one::<either>(incoming("t", "3", &[])).await;
    assert_eq!(
        none.failed.map(|failed| failed.reason),
        Some(Reason::NoHandler)
    );
    assert_eq!(
        said::<only>(incoming("t", "3", &[])).await,
        "Charged(Charged(3))"
    );
    let other = one::<only>(incoming("t", "3", &[("message-type", "Other")])).await;
    assert_eq!(
        other.failed.map(|failed| failed.reason),
        Some(Reason::NoHandler)
    );
}

#[tokio::test]
async fn tombstones_foreign_messages_and_bytes_are_taken() {
    assert_eq!(said::<optional>(incoming("t", "", &[])).await, "None");
    assert_eq!(
        said::<optional>(incoming("t", "3", &[])).await,
        "Some(Charged(3))"
    );
    let words = incoming("foreign.4", r#"["a","b"]"#, &[]);
    assert_eq!(said::<foreign>(words).await, "[\"a\", \"b\"] 4");
    let wrong = one::<foreign>(incoming("foreign.4", "{}", &[])).await;
    assert_eq!(wrong.fate, Fate::Discard);
    let wrong = one::<foreign>(incoming("foreign.x", "[]", &[])).await;
    assert_eq!(wrong.fate, Fate::DeadLetter);
    assert_eq!(said::<raw>(incoming("raw", "abc", &[])).await, "b\"abc\"");
}

#[tokio::test]
async fn a_batch_has_an_outcome_for_each_message() {
    let bodies = ["1", "unreadable", "2", "3"];
    let input = bodies
        .map(|body| incoming("billing.charged", body, &[]))
        .to_vec();
    let outcomes = many::<batch>(input).await;
    let fates: Vec<_> = outcomes.iter().map(|outcome| outcome.fate).collect();
    assert_eq!(
        fates,
        [Fate::Done, Fate::DeadLetter, Fate::DeadLetter, Fate::Done]
    );
    let reasons: Vec<_> = outcomes
        .iter()
        .map(|outcome| outcome.failed.as_ref().map(|failed| failed.reason))
        .collect();
    assert_eq!(
        reasons,
        [None, Some(Reason::Decode), Some(Reason::Rejected), None]
    );
    assert_eq!(outcomes[0].outgoing.len(), 1);

    let input = ["1", "2"]
        .map(|body| incoming("billing.charged", body, &[]))
        .to_vec();
    let outcomes = many::<rejecting>(input).await;
    assert_eq!(outcomes.len(), 2);
    assert!(
        outcomes
            .iter()
            .all(|outcome| outcome.fate == Fate::DeadLetter)
    );
}

#[tokio::test]
async fn the_functions_can_still_be_called() {
    let outcome = either(Either::Charged(Charged(1))).await;
    assert_eq!(
        outcome.failed.map(|failed| failed.text).as_deref(),
        Some("Charged(Charged(1))")
    );
}
