//! What goes wrong: connections, confirmations, duplicates, delays, crashes.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_lost_connection_hands_everything_out_again_and_makes_old_settlements_stale() {
    let (store, broker) = alone().await;
    let mut reader = read(&broker, subscription("t", "g")).await;
    publish_all(&broker, "t", &["1", "2", "3"]).await;
    let (first, second, third) = (reader.take(), reader.take(), reader.take());
    third.settlement.done().await.unwrap();
    store.faults().disconnect(seconds(2));
    assert!(!first.settlement.is_current());
    assert_eq!(broker.health_check().state, ConnectionState::Connecting);
    assert_eq!(reader.consumer.state(), ConsumerState::Starting);
    assert_eq!(second.settlement.done().await.unwrap(), Settled::Stale);

    let start = Instant::now();
    let again = reader.deliveries.recv().await.unwrap();
    assert_eq!(start.elapsed(), seconds(2));
    assert_eq!(broker.health_check().state, ConnectionState::Ready);
    assert_eq!(
        (text(&again.incoming).as_str(), again.incoming.redelivered),
        ("1", true)
    );
    let (incoming, settlement) = parts(first);
    let settled = settlement.dead_letter(incoming, Headers::new()).await;
    assert_eq!(settled.unwrap(), Settled::Stale);
    again.settlement.done().await.unwrap();
    assert_eq!(reader.drain().await, ["2"]);
    assert_eq!(store.activity(), Activity::default());
    let stale = |event: &super::super::Event| matches!(event.kind, EventKind::Stale { .. });
    assert_eq!(store.events().into_iter().filter(stale).count(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_is_left_in_the_channel_does_not_stop_the_new_connection() {
    let (store, broker) = alone().await;
    let mut wanted = subscription("t", "g");
    wanted.prefetch = 2;
    let mut reader = read(&broker, wanted).await;
    publish_all(&broker, "t", &["1", "2", "3"]).await;
    store.faults().disconnect(Duration::ZERO);
    tokio::time::sleep(seconds(1)).await;
    let mut settled = Vec::new();
    for _ in 0..5 {
        let delivery = reader.deliveries.recv().await.unwrap();
        let body = text(&delivery.incoming);
        settled.push((body, delivery.settlement.done().await.unwrap()));
    }
    let (old, new) = settled.split_at(2);
    assert!(old.iter().all(|(_, settled)| *settled == Settled::Stale));
    let new: Vec<_> = new
        .iter()
        .map(|(body, settled)| (body.as_str(), *settled))
        .collect();
    assert_eq!(
        new,
        [
            ("1", Settled::Yes),
            ("2", Settled::Yes),
            ("3", Settled::Yes)
        ]
    );
    store.idle(Instant::now()).await;
}

#[tokio::test(start_paused = true)]
async fn a_dead_process_has_no_effect_and_the_next_one_goes_on() {
    let store = store();
    let one = process(&store, "1").await;
    let mut reader = read(&one, subscription("t", "g")).await;
    publish_all(&one, "t", &["1", "2"]).await;
    let (incoming, settlement) = parts(reader.take());
    settlement
        .retry(incoming, seconds(5), Headers::new())
        .await
        .unwrap();
    let out = reader.take();
    store.kill("1");
    assert!(reader.deliveries.recv().await.is_none());
    assert_eq!(reader.consumer.state(), ConsumerState::Stopped);
    assert_eq!(out.settlement.done().await.unwrap(), Settled::Stale);
    let refused = one.publish(message("t", "ghost")).await.unwrap_err();
    assert_eq!(kind(&refused), PublishErrorKind::Closed);
    assert_eq!(one.health_check().state, ConnectionState::Closed);
    assert!(one.connect().await.is_err());

    tokio::time::advance(seconds(60)).await;
    let two = process(&store, "2").await;
    let mut reader = read(&two, subscription("t", "g")).await;
    assert_eq!(
        reader.drain().await,
        ["2", "1"],
        "the retry outlived the process"
    );
}

#[tokio::test(start_paused = true)]
async fn dropping_the_broker_ends_the_connection() {
    let store = store();
    let one = process(&store, "1").await;
    let mut reader = read(&one, subscription("t", "g")).await;
    publish(&one, "t", "1").await;
    let out = reader.take();
    drop(one);
    assert_eq!(store.activity().ready, 1);
    assert_eq!(out.settlement.done().await.unwrap(), Settled::Stale);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_takes_its_process_down_too_often_is_given_up() {
    let mut options = MemoryOptions::for_tests(1);
    options.delivery_limit = 2;
    let store = MemoryStore::new(options);
    let broker = process(&store, "1").await;
    let wanted = subscription("t", "g");
    let mut reader = read(&broker, wanted.clone()).await;
    publish(&broker, "t", "poison").await;
    for _ in 0..5 {
        let delivery = reader.take();
        delivery.settlement.release().await.unwrap();
    }
    for round in 0..3 {
        let delivery = reader.deliveries.recv().await.unwrap();
        assert!(delivery.incoming.redelivered, "round {round}");
        store.faults().disconnect(seconds(1));
    }
    tokio::time::sleep(seconds(2)).await;
    assert!(reader.is_empty());
    let letters = broker.dead_letters().unwrap();
    let dead = letters.list(&wanted, 10).await.unwrap();
    let reason = dead[0].headers.text(name::DLQ_REASON);
    assert_eq!(reason.as_deref(), Some("delivery_limit"));
}

#[tokio::test(start_paused = true)]
async fn confirms_are_lost_and_publishes_refused_as_often_as_scripted() {
    let (store, broker) = alone().await;
    let mut reader = read(&broker, subscription("t", "g")).await;
    store.faults().lose_confirms(1).nack(1);
    let refused = broker.publish(message("t", "1")).await.unwrap_err();
    assert_eq!(kind(&refused), PublishErrorKind::Nacked);
    assert!(reader.is_empty());
    let unknown = broker.publish(message("t", "2")).await.unwrap_err();
    assert_eq!(kind(&unknown), PublishErrorKind::ChannelLost);
    assert!(unknown.is_unknown());
    broker
        .publish(unknown.into_outgoing().unwrap())
        .await
        .unwrap();
    assert_eq!(reader.drain().await, ["2", "2"]);
}

#[tokio::test(start_paused = true)]
async fn a_duplicate_follows_its_message() {
    let (store, broker) = alone().await;
    let mut wanted = subscription("t", "g");
    wanted.prefetch = 1;
    let mut reader = read(&broker, wanted).await;
    store.faults().duplicate(2);
    publish_all(&broker, "t", &["1", "2", "3"]).await;
    assert_eq!(reader.drain().await, ["1", "1", "1", "2", "3"]);
    assert_eq!(store.activity(), Activity::default());
}

#[tokio::test(start_paused = true)]
async fn reordering_leaves_each_key_in_order_and_is_the_same_for_a_seed() {
    async fn run(seed: u64) -> Vec<String> {
        let store = MemoryStore::new(MemoryOptions::for_tests(seed));
        let broker = process(&store, "1").await;
        let mut reader = read(&broker, subscription("t", "g")).await;
        store.faults().reorder(20, seconds(1));
        for index in 0..24 {
            let key = ["a", "b", "c"][index % 3];
            let mut outgoing = message("t", &format!("{key}{index:02}"));
            outgoing.key = Some(key.into());
            broker.publish(outgoing).await.unwrap();
        }
        let mut order = Vec::new();
        while order.len() < 24 {
            let delivery = reader.deliveries.recv().await.unwrap();
            order.push(text(&delivery.incoming));
            delivery.settlement.done().await.unwrap();
        }
        order
    }
    let order = run(5).await;
    for key in ["a", "b", "c"] {
        let of_key: Vec<_> = order.iter().filter(|body| body.starts_with(key)).collect();
        assert!(of_key.is_sorted(), "{of_key:?}");
    }
    let published: Vec<_> = (0..24)
        .map(|index| format!("{}{index:02}", ["a", "b", "c"][index % 3]))
        .collect();
    assert_ne!(order, published);
    assert_eq!(order, run(5).await);
    assert_ne!(order, run(6).await);
}

#[tokio::test(start_paused = true)]
async fn delayed_deliveries_come_later() {
    let (store, broker) = alone().await;
    let mut reader = read(&broker, subscription("t", "g")).await;
    store.faults().delay(seconds(3));
    publish(&broker, "t", "1").await;
    assert_eq!(store.activity().waiting, 1);
    let start = Instant::now();
    store.faults().clear();
    publish(&broker, "t", "2").await;
    assert_eq!(reader.drain().await, ["2"]);
    reader
        .deliveries
        .recv()
        .await
        .unwrap()
        .settlement
        .done()
        .await
        .unwrap();
    assert_eq!(start.elapsed(), seconds(3));
    assert_eq!(store.activity(), Activity::default());
}

#[tokio::test(start_paused = true)]
async fn a_refused_process_keeps_trying_and_its_publishes_wait() {
    let store = store();
    store.faults().refuse_connections(seconds(10));
    let broker = MemoryBroker::new(&store, &BrokerContext::new("main", "billing", "1"));
    assert_eq!(broker.connect().await.unwrap(), Connected::Retrying);
    let mut reader = read(&broker, subscription("t", "g")).await;
    assert_eq!(reader.consumer.state(), ConsumerState::Starting);
    let start = Instant::now();
    publish(&broker, "t", "1").await;
    assert_eq!(start.elapsed(), seconds(10));
    assert_eq!(reader.drain().await, ["1"]);

    store
        .faults()
        .refuse_connections(seconds(60))
        .disconnect(Duration::ZERO);
    let late = broker.publish(message("t", "2")).await.unwrap_err();
    assert_eq!(kind(&late), PublishErrorKind::Timeout);
    assert_eq!(start.elapsed(), seconds(40));
}

#[tokio::test(start_paused = true)]
async fn a_process_dies_at_the_scripted_point() {
    let store = store();
    let (one, two) = (process(&store, "1").await, process(&store, "2").await);
    let mut first = read(&one, subscription("t", "g")).await;
    publish(&one, "t", "1").await;
    let out = first.take();
    let mut second = read(&two, subscription("t", "g")).await;
    store.faults().crash_at(CrashPoint::BeforeSettlement, 2);
    assert!(!one.reached(CrashPoint::BeforeSettlement));
    assert!(!one.reached(CrashPoint::AfterSettlement));
    assert!(one.reached(CrashPoint::BeforeSettlement));
    assert!(!two.reached(CrashPoint::BeforeSettlement));
    assert_eq!(out.settlement.done().await.unwrap(), Settled::Stale);
    assert_eq!(second.drain().await, ["1"]);
    publish(&two, "t", "2").await;
    assert_eq!(second.drain().await, ["2"], "only one died");
}
