//! What handlers send, and dead letters that are sent back.

use super::*;

#[tokio::test(start_paused = true)]
async fn an_output_that_nobody_takes_is_a_failed_attempt_with_its_reason() {
    let world = World::new().await;
    let seen = Seen::default();
    let sending = handler(&seen, |incoming, scope| async move {
        let id = incoming.id.derive("charge", 0);
        let mut outgoing = crate::message::Outgoing::new("nowhere", id, Bytes::from_static(b"y"));
        outgoing
            .headers
            .set(name::SENDER, scope.publisher().service().to_owned());
        let mut outcome = Outcome::done();
        outcome.outgoing.push(outgoing);
        outcome
    });
    let planned = planned("orders", sending);
    let _runner = world.run(planned.clone()).await;
    world.publish("orders", "x", &[]).await;
    world.settled().await;
    assert_eq!(seen.take().len(), 5);
    let dead = world.dead_letters(&planned).await;
    let reason = dead[0].headers.text(name::DLQ_REASON);
    assert_eq!(reason.as_deref(), Some(Reason::OutputUnroutable.as_str()));
}

#[tokio::test(start_paused = true)]
async fn lost_confirms_and_refusals_are_told_apart_and_can_be_sent_again() {
    let world = World::new().await;
    let seen = Seen::default();
    let _runner = world
        .run(planned("orders", answering(&seen, Outcome::done)))
        .await;
    let publish = || world.publisher.publish_raw("orders", "x", Headers::new());
    world.store.faults().lose_confirms(1);
    let error = publish().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.is_unknown()),
        (PublishErrorKind::ChannelLost, true)
    );
    let id = world
        .publisher
        .resend(error.into_outgoing().unwrap())
        .await
        .unwrap()
        .id;
    world.store.faults().nack(1);
    let error = publish().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.is_unknown()),
        (PublishErrorKind::Nacked, false)
    );
    world.settled().await;
    assert_eq!(seen.take().len(), 2, "the unknown one and its repeat, {id}");
    let unroutable = world
        .publisher
        .publish_raw("nobody", "x", Headers::new())
        .await
        .unwrap_err();
    assert_eq!(unroutable.kind(), PublishErrorKind::Unroutable);
    let bad = world
        .publisher
        .publish_raw("no body", "x", Headers::new())
        .await
        .unwrap_err();
    assert_eq!(bad.kind(), PublishErrorKind::Topic);
    let large = vec![0_u8; 16 * 1024 * 1024 + 1];
    let large = world
        .publisher
        .publish_raw("orders", large, Headers::new())
        .await
        .unwrap_err();
    assert_eq!(large.kind(), PublishErrorKind::TooLarge);
    assert!(world.publishing.close(Instant::now()).await);
    assert_eq!(
        publish().await.unwrap_err().kind(),
        PublishErrorKind::Closed
    );
}

#[tokio::test(start_paused = true)]
async fn dead_letters_go_back_to_their_own_subscription_as_first_attempts() {
    let world = World::new().await;
    let seen = Seen::default();
    let broken: Arc<AtomicUsize> = Arc::new(AtomicUsize::new(1));
    let switch = Arc::clone(&broken);
    let handler = handler(&seen, move |_, _| {
        let fails = switch.load(Ordering::SeqCst) == 1;
        async move {
            if fails {
                Outcome::dead_letter("closed")
            } else {
                Outcome::done()
            }
        }
    });
    let planned = planned("orders", handler);
    let _runner = world.run(planned.clone()).await;
    let other = Seen::default();
    let bystander = planned_with("orders", answering(&other, Outcome::done), |planned| {
        let group = Group::Named("mail".into());
        planned.subscription = Arc::new(Subscription::new(TopicPattern::new("orders"), group));
    });
    let _other = world.run(bystander).await;
    for id in ["m-1", "m-2", "m-3"] {
        world
            .publish("orders", id, &[(name::MESSAGE_ID, id), ("x-own", "kept")])
            .await;
    }
    world.settled().await;
    assert_eq!((seen.take().len(), other.take().len()), (3, 3));

    broken.store(0, Ordering::SeqCst);
    let broker = Arc::clone(&world.broker) as Arc<dyn MessageBroker>;
    let letters = DeadLetters::new(broker, Arc::clone(&planned.subscription));
    assert_eq!(letters.list(2).await.unwrap().len(), 2);
    let id = crate::message::MessageId::parse("m-2").unwrap();
    let shown = letters.show(&id, 10).await.unwrap().unwrap();
    assert_eq!((&*shown.reason(), shown.attempts()), ("rejected", Some(1)));
    let one = || Redrive::new().matching(|letter| letter.id().as_str() == "m-2");
    assert_eq!(letters.redrive(&one().dry_run()).await.unwrap(), 1);
    assert_eq!(letters.list(10).await.unwrap().len(), 3);
    assert_eq!(letters.redrive(&one()).await.unwrap(), 1);
    world.settled().await;
    assert_eq!(seen.take(), ["m-2#1"]);
    let slowly = Redrive::new().rate(1, Duration::from_secs(1)).limit(1);
    assert_eq!(letters.redrive(&slowly).await.unwrap(), 1);
    world.settled().await;
    assert_eq!(seen.take(), ["m-1#1"]);
    assert_eq!(
        letters
            .purge(10, |letter| letter.reason() == "timeout")
            .await
            .unwrap(),
        0
    );
    assert_eq!(letters.purge(10, |_| true).await.unwrap(), 1);
    assert!(letters.list(10).await.unwrap().is_empty());
    assert!(
        other.take().is_empty(),
        "another group saw the message again"
    );
}

#[tokio::test(start_paused = true)]
async fn a_slow_redrive_sends_each_dead_letter_once_also_where_it_fails_again() {
    let world = World::new().await;
    let seen = Seen::default();
    let planned = planned("orders", answering(&seen, || Outcome::dead_letter("never")));
    let _runner = world.run(planned.clone()).await;
    // One of them twice, as at-least-once allows.
    for id in ["m-1", "m-2", "m-3", "m-2"] {
        world.publish("orders", id, &[(name::MESSAGE_ID, id)]).await;
    }
    world.settled().await;
    assert_eq!(seen.take().len(), 4);
    let broker = Arc::clone(&world.broker) as Arc<dyn MessageBroker>;
    let letters = DeadLetters::new(broker, Arc::clone(&planned.subscription));
    for rate in [1, 100] {
        let redrive = Redrive::new().rate(rate, Duration::from_secs(1));
        let ended = tokio::time::timeout(HOUR, letters.redrive(&redrive)).await;
        assert_eq!(ended.expect("it ends").unwrap(), 4, "{rate}");
        world.settled().await;
        let mut again = seen.take();
        again.sort();
        assert_eq!(again, ["m-1#1", "m-2#1", "m-2#1", "m-3#1"]);
        assert_eq!(letters.list(10).await.unwrap().len(), 4);
    }
}
