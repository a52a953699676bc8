//! Deliveries, settlements, retries and dead letters of one healthy store.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_group_shares_and_each_group_gets_every_message() {
    let store = store();
    let (one, two) = (process(&store, "1").await, process(&store, "2").await);
    let mut a1 = read(&one, subscription("t", "a")).await;
    let mut a2 = read(&two, subscription("t", "a")).await;
    let mut b = read(&two, subscription("t", "b")).await;
    publish_all(&one, "t", &["1", "2", "3", "4"]).await;
    assert_eq!(a1.drain().await, ["1", "3"]);
    assert_eq!(a2.drain().await, ["2", "4"]);
    assert_eq!(b.drain().await, ["1", "2", "3", "4"]);
    assert_eq!(store.activity(), Activity::default());
}

#[tokio::test(start_paused = true)]
async fn a_message_arrives_with_everything_it_was_published_with() {
    let (_, broker) = alone().await;
    let mut reader = read(&broker, subscription("t", "g")).await;
    let mut outgoing = message("t", "body");
    outgoing.headers.set("x-tenant", "acme");
    outgoing.key = Some("k".into());
    broker.publish(outgoing).await.unwrap();
    let incoming = reader.take().incoming;
    assert_eq!(&*incoming.topic, "t");
    assert_eq!(incoming.body, "body");
    assert_eq!(incoming.key.as_deref(), Some("k"));
    assert_eq!(incoming.id.as_str(), "t/body");
    assert_eq!((incoming.attempt, incoming.redelivered), (1, false));
    assert_eq!(incoming.headers.text("X-Tenant").as_deref(), Some("acme"));
    assert_eq!(incoming.origin.to_string(), "main:g.t@1");
}

#[tokio::test(start_paused = true)]
async fn no_more_than_the_prefetch_is_out() {
    let (store, broker) = alone().await;
    let mut wanted = subscription("t", "g");
    wanted.prefetch = 2;
    let mut reader = read(&broker, wanted).await;
    publish_all(&broker, "t", &["1", "2", "3", "4"]).await;
    let (first, second) = (reader.take(), reader.take());
    assert!(reader.is_empty());
    assert_eq!(store.queues()[0].in_flight, 2);
    second.settlement.done().await.unwrap();
    assert_eq!(text(&reader.take().incoming), "3");
    assert!(reader.is_empty());
    first.settlement.done().await.unwrap();
    assert_eq!(text(&reader.take().incoming), "4");
}

#[tokio::test(start_paused = true)]
async fn what_is_released_comes_again_at_its_place() {
    let (_, broker) = alone().await;
    let mut wanted = subscription("t", "g");
    wanted.prefetch = 2;
    let mut reader = read(&broker, wanted).await;
    publish_all(&broker, "t", &["1", "2", "3"]).await;
    let (first, second) = (reader.take(), reader.take());
    reader.consumer.pause().await;
    second.settlement.release().await.unwrap();
    first.settlement.release().await.unwrap();
    assert!(reader.is_empty());
    reader.consumer.resume().await;
    let first = reader.take().incoming;
    assert_eq!((text(&first).as_str(), first.redelivered), ("1", true));
    assert_eq!(text(&reader.take().incoming), "2");
}

#[tokio::test(start_paused = true)]
async fn a_short_retry_does_not_wait_behind_a_long_one() {
    let (store, broker) = alone().await;
    let mut reader = read(&broker, subscription("t", "g")).await;
    let mut other = read(&broker, subscription("t", "other")).await;
    let start = Instant::now();
    for (body, after) in [("long", 30), ("short", 5)] {
        publish(&broker, "t", body).await;
        let (incoming, settlement) = parts(reader.take());
        let mut headers = incoming.headers.clone();
        headers.set(name::ATTEMPT, 2u32);
        let settled = settlement.retry(incoming, seconds(after), headers).await;
        assert_eq!(settled.unwrap(), Settled::Yes);
    }
    assert_eq!(store.queues()[0].waiting, 2);
    assert_eq!(store.next_due(), Some(start + seconds(5)));
    for (body, after) in [("short", 5), ("long", 30)] {
        let delivery = reader.deliveries.recv().await.unwrap();
        assert_eq!(text(&delivery.incoming), body);
        assert_eq!(start.elapsed().as_secs(), after);
        let incoming = &delivery.incoming;
        assert_eq!((incoming.attempt, incoming.redelivered), (2, false));
        delivery.settlement.done().await.unwrap();
    }
    assert_eq!(
        other.drain().await,
        ["long", "short"],
        "retries are not for others"
    );
    assert!(other.is_empty());
}

#[tokio::test(start_paused = true)]
async fn dead_letters_are_listed_redriven_once_and_purged() {
    let (_, broker) = alone().await;
    let wanted = subscription("t", "g");
    let mut reader = read(&broker, wanted.clone()).await;
    for body in ["1", "2", "3"] {
        publish(&broker, "t", body).await;
        let (incoming, settlement) = parts(reader.take());
        let mut headers = incoming.headers.clone();
        headers.set(name::DLQ_REASON, "rejected");
        settlement.dead_letter(incoming, headers).await.unwrap();
    }
    let letters = broker.dead_letters().unwrap();
    let listed = letters.list(&wanted, 2).await.unwrap();
    assert_eq!(listed.iter().map(text).collect::<Vec<_>>(), ["1", "2"]);
    let reason = listed[0].headers.text(name::DLQ_REASON);
    assert_eq!(reason.as_deref(), Some("rejected"));

    let choose = |incoming: &Incoming| {
        let mut headers = incoming.headers.clone();
        headers.remove(name::DLQ_REASON);
        (incoming.body != "2").then_some(headers)
    };
    assert_eq!(letters.redrive(&wanted, 10, &choose).await.unwrap(), 2);
    let again = reader.take();
    assert_eq!(text(&again.incoming), "1");
    assert_eq!(again.incoming.id.as_str(), "t/1");
    assert!(!again.incoming.headers.contains(name::DLQ_REASON));
    assert_eq!(text(&reader.take().incoming), "3");
    assert_eq!(letters.redrive(&wanted, 10, &choose).await.unwrap(), 0);

    assert_eq!(letters.purge(&wanted, 10, &|_| false).await.unwrap(), 0);
    assert_eq!(letters.purge(&wanted, 10, &|_| true).await.unwrap(), 1);
    assert!(letters.list(&wanted, 10).await.unwrap().is_empty());
    let unknown = letters.list(&subscription("t", "nobody"), 1).await;
    assert!(unknown.unwrap_err().to_string().contains("nobody.t"));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_kept_where_dead_letters_are_off() {
    let (store, broker) = alone().await;
    let mut wanted = subscription("t", "g");
    wanted.dead_letter = false;
    let mut reader = read(&broker, wanted.clone()).await;
    publish(&broker, "t", "1").await;
    let (incoming, settlement) = parts(reader.take());
    let settled = settlement.dead_letter(incoming, Headers::new()).await;
    assert_eq!(settled.unwrap(), Settled::Yes);
    let letters = broker.dead_letters().unwrap();
    assert!(letters.list(&wanted, 10).await.unwrap().is_empty());
    assert_eq!(store.activity(), Activity::default());
}

#[tokio::test(start_paused = true)]
async fn higher_priority_is_handed_out_first() {
    let (_, broker) = alone().await;
    let mut wanted = subscription("t", "g");
    wanted.prefetch = 1;
    let mut reader = read(&broker, wanted).await;
    for (body, priority) in [
        ("out", None),
        ("low", None),
        ("mid", Some(3)),
        ("high", Some(9)),
    ] {
        let mut outgoing = message("t", body);
        outgoing.priority = priority;
        broker.publish(outgoing).await.unwrap();
    }
    assert_eq!(reader.drain().await, ["out", "high", "mid", "low"]);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_outlives_its_time_is_a_dead_letter() {
    let (store, broker) = alone().await;
    let wanted = subscription("t", "g");
    let mut reader = read(&broker, wanted.clone()).await;
    reader.consumer.pause().await;
    for (body, ttl) in [("short", Some(5)), ("forever", None)] {
        let mut outgoing = message("t", body);
        outgoing.ttl = ttl.map(seconds);
        broker.publish(outgoing).await.unwrap();
    }
    store.idle(Instant::now() + seconds(10)).await;
    reader.consumer.resume().await;
    assert_eq!(reader.drain().await, ["forever"]);
    let letters = broker.dead_letters().unwrap();
    let dead = letters.list(&wanted, 10).await.unwrap();
    assert_eq!(dead.iter().map(text).collect::<Vec<_>>(), ["short"]);
    for (header, value) in [
        (name::DLQ_REASON, "expired"),
        (name::DLQ_GROUP, "g"),
        (name::DLQ_TOPIC, "t"),
        (name::DLQ_ORIGIN, "main:g.t@1"),
        (name::DLQ_ATTEMPTS, "1"),
    ] {
        assert_eq!(dead[0].headers.text(header).as_deref(), Some(value));
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_out_in_time_does_not_expire() {
    let (store, broker) = alone().await;
    let mut reader = read(&broker, subscription("t", "g")).await;
    let mut outgoing = message("t", "1");
    outgoing.ttl = Some(seconds(1));
    broker.publish(outgoing).await.unwrap();
    assert_eq!(store.next_due(), None, "its timer went with it");
    let delivery = reader.take();
    tokio::time::advance(seconds(2)).await;
    assert_eq!(delivery.settlement.done().await.unwrap(), Settled::Yes);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses_and_counts_what_waits_and_what_is_dead() {
    let mut options = MemoryOptions::for_tests(1);
    options.max_messages = 2;
    let store = MemoryStore::new(options);
    let broker = process(&store, "1").await;
    let mut reader = read(&broker, subscription("t", "g")).await;
    publish(&broker, "t", "1").await;
    publish(&broker, "t", "2").await;
    let (incoming, settlement) = parts(reader.take());
    settlement
        .dead_letter(incoming, Headers::new())
        .await
        .unwrap();
    let (incoming, settlement) = parts(reader.take());
    settlement
        .retry(incoming, seconds(9), Headers::new())
        .await
        .unwrap();
    let refused = broker.publish(message("t", "3")).await.unwrap_err();
    assert_eq!(kind(&refused), PublishErrorKind::Nacked);
    assert!(refused.to_string().contains("`g.t` is full"), "{refused}");
    assert_eq!(refused.into_outgoing().unwrap().body, "3");
}

#[tokio::test(start_paused = true)]
async fn a_paused_consumer_gets_nothing_and_a_stopped_one_ends() {
    let (_, broker) = alone().await;
    let mut reader = read(&broker, subscription("t", "g")).await;
    assert_eq!(reader.consumer.state(), ConsumerState::Running);
    publish(&broker, "t", "1").await;
    let out = reader.take();
    reader.consumer.pause().await;
    assert_eq!(reader.consumer.state(), ConsumerState::Paused);
    publish(&broker, "t", "2").await;
    assert!(reader.is_empty());
    reader.consumer.resume().await;
    let second = reader.take();
    reader.consumer.stop().await;
    assert_eq!(reader.consumer.state(), ConsumerState::Stopped);
    publish(&broker, "t", "3").await;
    assert!(reader.deliveries.recv().await.is_none(), "the channel ends");
    assert_eq!(out.settlement.done().await.unwrap(), Settled::Yes);
    assert_eq!(second.settlement.done().await.unwrap(), Settled::Yes);
    let mut next = read(&broker, subscription("t", "g")).await;
    assert_eq!(next.drain().await, ["3"]);
}

#[tokio::test(start_paused = true)]
async fn with_order_by_key_the_next_consumer_begins_when_the_last_has_left() {
    let store = store();
    let (one, two) = (process(&store, "1").await, process(&store, "2").await);
    let mut wanted = subscription("t", "g");
    wanted.ordered_by = Some(OrderedBy::Key);
    let mut first = read(&one, wanted.clone()).await;
    let mut second = read(&two, wanted.clone()).await;
    publish(&one, "t", "1").await;
    let out = first.take();
    first.consumer.stop().await;
    publish(&one, "t", "2").await;
    assert!(second.is_empty(), "1 is out still");
    out.settlement.done().await.unwrap();
    assert_eq!(second.drain().await, ["2"]);

    let mut unordered = wanted.clone();
    unordered.ordered_by = None;
    let conflict = read(&one, unordered).await;
    let ConsumerState::Failed(why) = conflict.consumer.state() else {
        panic!("{:?}", conflict.consumer.state());
    };
    assert!(
        why.contains("`g.t` is there with `ordered_by = key`"),
        "{why}"
    );
}

#[tokio::test(start_paused = true)]
async fn the_event_log_tells_what_led_to_what() {
    let (store, broker) = alone().await;
    let mut reader = read(&broker, subscription("t", "g")).await;
    publish(&broker, "t", "1").await;
    let delivery = reader.take();
    let mut outgoing = message("t", "2");
    outgoing.headers.set(name::CAUSATION_ID, "t/1");
    broker.publish(outgoing).await.unwrap();
    delivery.settlement.done().await.unwrap();
    let lines: Vec<_> = store.events().iter().map(ToString::to_string).collect();
    let expected = [
        "1 connected (epoch 1)",
        "t/1 1 -> t (1 queues)",
        "t/1 g.t -> 1 (attempt 1)",
        "t/2 1 -> t (1 queues, because of t/1)",
        "t/2 g.t -> 1 (attempt 1)",
        "t/1 done in g.t",
    ];
    assert_eq!(lines.len(), expected.len());
    for (line, expected) in lines.iter().zip(expected) {
        assert_eq!(line, &format!("    0.000s  {expected}"));
    }
    let numbers: Vec<_> = store.events().iter().map(|event| event.number).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6]);
}

#[tokio::test(start_paused = true)]
async fn idle_waits_for_what_is_out_and_for_what_is_due_in_time() {
    let (store, broker) = alone().await;
    let mut reader = read(&broker, subscription("t", "g")).await;
    store.idle(Instant::now()).await;
    publish(&broker, "t", "1").await;
    let start = Instant::now();
    let worker = tokio::spawn(async move {
        let (incoming, settlement) = parts(reader.deliveries.recv().await.unwrap());
        tokio::time::sleep(seconds(1)).await;
        settlement
            .retry(incoming, seconds(5), Headers::new())
            .await
            .unwrap();
        let again = reader.deliveries.recv().await.unwrap();
        tokio::time::sleep(seconds(1)).await;
        again.settlement.done().await.unwrap();
        reader
    });
    store.idle(Instant::now()).await;
    assert_eq!(
        start.elapsed(),
        seconds(1),
        "the retry is beyond the horizon"
    );
    store.idle(Instant::now() + seconds(6)).await;
    assert_eq!(start.elapsed(), seconds(7));
    assert_eq!(store.next_due(), None);
    worker.await.unwrap();
}
