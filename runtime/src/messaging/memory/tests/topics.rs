//! Who gets what: routes, patterns, starts, instances, topology.

use super::*;

#[tokio::test(start_paused = true)]
async fn what_nobody_listens_to_is_reported_unless_that_is_fine() {
    let (store, broker) = alone().await;
    let refused = broker.publish(message("t", "1")).await.unwrap_err();
    assert_eq!(kind(&refused), PublishErrorKind::Unroutable);
    assert!(refused.into_outgoing().is_some());
    let mut optional = message("t", "2");
    optional.subscribers_optional = true;
    broker.publish(optional).await.unwrap();
    assert_eq!(
        store.published("t").iter().map(text).collect::<Vec<_>>(),
        ["2"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_pattern_gets_all_its_topics_and_only_those() {
    let (_, broker) = alone().await;
    let mut reader = read(&broker, subscription("orders.{region}.placed", "g")).await;
    for topic in ["orders.eu.placed", "orders.us.placed"] {
        publish(&broker, topic, "x").await;
    }
    let refused = broker.publish(message("orders.placed", "x")).await;
    assert_eq!(kind(&refused.unwrap_err()), PublishErrorKind::Unroutable);
    assert_eq!(&*reader.take().incoming.topic, "orders.eu.placed");
    assert_eq!(&*reader.take().incoming.topic, "orders.us.placed");
    let mut late = read(&broker, subscription("orders.eu.placed", "late")).await;
    publish(&broker, "orders.eu.placed", "y").await;
    assert_eq!(late.drain().await, ["y"], "a known topic finds a new queue");
    assert_eq!(reader.drain().await, ["y"]);
}

#[tokio::test(start_paused = true)]
async fn a_subscription_begins_when_applied_and_misses_nothing_from_then_on() {
    let store = store();
    let one = process(&store, "1").await;
    let mut optional = message("t", "before");
    optional.subscribers_optional = true;
    one.publish(optional).await.unwrap();
    let wanted = Arc::new(subscription("t", "g"));
    let topology = one.topology(std::slice::from_ref(&wanted));
    one.apply(&topology).await.unwrap();
    publish(&one, "t", "after").await;
    one.disconnect(Instant::now()).await;
    let two = process(&store, "2").await;
    let mut reader = read(&two, (*wanted).clone()).await;
    assert_eq!(reader.drain().await, ["after"]);

    let mut earliest = subscription("t", "late");
    earliest.start = Start::Earliest;
    let applied = two.topology(&[Arc::new(earliest.clone())]);
    two.apply(&applied).await.unwrap();
    two.apply(&applied).await.unwrap();
    let mut reader = read(&two, earliest).await;
    assert_eq!(reader.drain().await, ["before", "after"]);
}

#[tokio::test(start_paused = true)]
async fn the_log_is_bounded_by_count_and_by_size() {
    let mut options = MemoryOptions::for_tests(1);
    (options.log_messages, options.log_bytes) = (3, 1_000);
    let store = MemoryStore::new(options);
    let broker = process(&store, "1").await;
    let _reader = read(&broker, subscription("t", "g")).await;
    publish_all(&broker, "t", &["1", "2", "3", "4"]).await;
    let kept = || store.published("t").iter().map(text).collect::<Vec<_>>();
    assert_eq!(kept(), ["2", "3", "4"]);
    let big = "x".repeat(850);
    let mut outgoing = message("t", "big");
    outgoing.body = Bytes::from(big.clone());
    broker.publish(outgoing).await.unwrap();
    assert_eq!(kept(), ["4".to_owned(), big]);
}

#[tokio::test(start_paused = true)]
async fn each_instance_gets_everything_and_its_queue_goes_with_it() {
    let store = store();
    let (one, two) = (process(&store, "1").await, process(&store, "2").await);
    let each = |instance: &str| {
        let group = Group::EachInstance {
            service: "billing".into(),
            instance: instance.into(),
            subscriber: "refresh".into(),
        };
        Subscription::new(TopicPattern::new("t"), group)
    };
    let mut a = read(&one, each("1")).await;
    let mut b = read(&two, each("2")).await;
    publish(&one, "t", "x").await;
    assert_eq!(a.drain().await, ["x"]);
    assert_eq!(b.drain().await, ["x"]);
    let names = || {
        store
            .queues()
            .iter()
            .map(|queue| queue.name.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(), ["billing.refresh.1.t", "billing.refresh.2.t"]);
    store.kill("1");
    assert_eq!(names(), ["billing.refresh.2.t"]);
    store.faults().disconnect(seconds(1));
    store.idle(Instant::now() + seconds(1)).await;
    publish(&two, "t", "y").await;
    assert_eq!(b.drain().await, ["y"], "a lost connection keeps it");
    publish(&two, "t", "z").await;
    let (incoming, settlement) = parts(b.take());
    let headers = incoming.headers.clone();
    settlement.dead_letter(incoming, headers).await.unwrap();
    two.disconnect(Instant::now()).await;
    assert!(names().is_empty());
    let three = process(&store, "3").await;
    let mut c = read(&three, each("3")).await;
    let letters = three.dead_letters().unwrap();
    let left = letters.list(&each("3"), 10).await.unwrap();
    assert_eq!(
        left.iter().map(text).collect::<Vec<_>>(),
        ["z"],
        "what it gave up stays"
    );
    let again = |incoming: &Incoming| Some(incoming.headers.clone());
    assert_eq!(letters.redrive(&each("3"), 10, &again).await.unwrap(), 1);
    assert_eq!(c.drain().await, ["z"]);
}

#[tokio::test(start_paused = true)]
async fn prefixes_are_worlds_of_their_own() {
    let store = store();
    let mut context = BrokerContext::new("main", "billing", "1");
    context.prefix = Some("test.".into());
    let one = MemoryBroker::new(&store, &context);
    one.connect().await.unwrap();
    let two = process(&store, "2").await;
    let mut reader = read(&one, subscription("t", "g")).await;
    let refused = two.publish(message("t", "x")).await.unwrap_err();
    assert_eq!(kind(&refused), PublishErrorKind::Unroutable);
    publish(&one, "t", "y").await;
    let delivery = reader.take();
    assert_eq!(delivery.incoming.origin.to_string(), "main:test.g.t@1");
}

#[tokio::test(start_paused = true)]
async fn with_strict_topology_a_queue_has_to_be_there() {
    let mut options = MemoryOptions::for_tests(1);
    options.strict_topology = true;
    let store = MemoryStore::new(options);
    let broker = process(&store, "1").await;
    let mut verify = subscription("t", "g");
    verify.topology = TopologyMode::Verify;
    let topology = broker.topology(&[Arc::new(verify.clone())]);
    let error = broker.apply(&topology).await.unwrap_err();
    assert_eq!(error.to_string(), "broker `main`: queue `g.t` is missing");
    let mut reader = read(&broker, verify).await;
    let missing = ConsumerState::Failed("queue `g.t` is missing".into());
    assert_eq!(reader.consumer.state(), missing);
    let made = broker.topology(&[Arc::new(subscription("t", "g"))]);
    broker.apply(&made).await.unwrap();
    assert_eq!(reader.consumer.state(), ConsumerState::Running);
    publish(&broker, "t", "x").await;
    assert_eq!(reader.drain().await, ["x"]);
}

#[tokio::test(start_paused = true)]
async fn a_topology_says_what_it_is() {
    let (_, broker) = alone().await;
    let mut wanted = subscription("t.{x}", "g");
    wanted.ordered_by = Some(OrderedBy::Key);
    wanted.start = Start::Earliest;
    wanted.dead_letter = false;
    let topology = broker.topology(&[Arc::new(wanted)]);
    let part = &topology.parts[0];
    assert_eq!((part.kind, part.name.as_str()), ("queue", "g.t.{x}"));
    assert_eq!(part.subscription.as_deref(), Some("g.t.{x}"));
    let arguments: Vec<_> = part
        .arguments
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let expected = [
        "topic=t.{x}",
        "group=g",
        "ordered_by=key",
        "start=earliest",
        "dead_letter=false",
    ];
    assert_eq!(arguments, expected);
}

#[tokio::test(start_paused = true)]
async fn an_inspection_tells_what_is_missing_different_and_left_over() {
    let (_, broker) = alone().await;
    let old = Arc::new(subscription("old", "g"));
    let changed = Arc::new(subscription("changed", "g"));
    let before = broker.topology(&[Arc::clone(&old), Arc::clone(&changed)]);
    broker.apply(&before).await.unwrap();
    publish(&broker, "old", "1").await;
    let mut ordered = Subscription::clone(&changed);
    ordered.ordered_by = Some(OrderedBy::Key);
    let now = [Arc::new(ordered), Arc::new(subscription("new", "g"))];
    let inspection = broker.inspect(&broker.topology(&now)).await.unwrap();
    assert!(!inspection.is_clean());
    let missing: Vec<_> = inspection.missing.iter().map(|part| &*part.name).collect();
    assert_eq!(missing, ["g.new"]);
    let different = &inspection.different;
    assert_eq!(
        (different.len(), &*different[0].part.name),
        (1, "g.changed")
    );
    assert!(different[0].what.contains("ordered_by = key"));
    let left = &inspection.leftover;
    assert_eq!(
        (left.len(), &*left[0].name, left[0].depth),
        (1, "g.old", Some(1))
    );
    assert!(broker.inspect(&before).await.unwrap().is_clean());
}
