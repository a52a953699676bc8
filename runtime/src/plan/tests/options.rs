//! What subscribers and the configuration say, and who has the last word.

use super::*;

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
fn retries_end_before_the_message_expires() {
    assert_eq!(
        report("", one(&ON_SHORT, UNSET)),
        "  billing/src/handlers.rs:10  charge  retries for up to 6s400ms, and `Quote` is worth delivering for 2s
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
