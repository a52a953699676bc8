//! Crashes, stops, and faults of the broker.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_crash_at_every_point_loses_nothing_and_repeats_with_the_same_ids() {
    let cases = [
        (CrashPoint::BeforeHandler, 1, 1),
        (CrashPoint::BeforeOutputs, 2, 1),
        (CrashPoint::BeforeSettlement, 2, 2),
        (CrashPoint::AfterSettlement, 1, 1),
    ];
    for (point, calls, outputs) in cases {
        let world = World::default();
        let app = TestApp::new()
            .register::<charge>()
            .state(world.clone())
            .start()
            .await;
        app.faults().crash_at(point, 1);
        app.publish(Publish::new(order("1", 5))).await;
        app.settle().await;
        assert!(!app.is_running(), "{point:?}");
        app.restart().await;
        app.settle().await;
        assert!(app.is_running());
        assert_eq!(world.calls().len(), calls, "{point:?}\n{}", app.timeline());
        let sent = app.envelopes::<Charged>();
        assert_eq!(sent.len(), outputs, "{point:?}\n{}", app.timeline());
        let ids: BTreeSet<_> = sent.iter().map(|sent| sent.id.clone()).collect();
        assert_eq!(ids.len(), 1, "{point:?}: the repeat has an id of its own");
        assert!(app.dead_letters("charge").await.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_crash_ends_handlers_where_they_are() {
    let world = World::default();
    let app = TestApp::new()
        .register::<slow>()
        .state(world.clone())
        .start()
        .await;
    app.publish(&Job).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    app.crash().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.calls(), ["begin"]);
    app.publish(&Job).await;
    app.settle().await;
    assert_eq!(world.calls(), ["begin"], "nobody is there");
    app.restart().await;
    app.settle().await;
    assert_eq!(
        world.calls().iter().filter(|call| *call == "end").count(),
        2
    );
}

#[tokio::test(start_paused = true)]
async fn stopping_in_order_finishes_what_runs() {
    let world = World::default();
    let app = TestApp::new()
        .register::<slow>()
        .state(world.clone())
        .start()
        .await;
    app.publish(&Job).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    app.stop().await;
    assert!(!app.is_running());
    assert_eq!(world.calls(), ["begin", "end"]);
    app.restart().await;
    app.restart().await;
    app.settle().await;
    assert_eq!(world.calls(), ["begin", "end"], "it was settled");
    assert!(app.manager().health().ready);
}

#[tokio::test(start_paused = true)]
async fn duplicates_and_lost_confirmations_are_scripted() {
    let world = World::default();
    let app = shop(&world).await;
    app.faults().duplicate(1);
    app.publish(&order("1", 5)).await;
    app.settle().await;
    assert_eq!(
        world
            .calls()
            .iter()
            .filter(|call| *call == "charge 1 #1")
            .count(),
        2
    );

    // The first lost confirmation is the test's own, the second one the app's.
    app.faults().lose_confirms(1);
    let lost = app.try_publish(&order("2", 5)).await.unwrap_err();
    assert_eq!(lost.kind(), PublishErrorKind::ChannelLost);
    app.settle().await;
    assert_published!(app, Charged { order_id: "2", .. });
}

#[tokio::test(start_paused = true)]
async fn a_lost_confirmation_of_an_output_is_a_failed_attempt_with_the_same_output() {
    let world = World::default();
    let app = shop(&world).await;
    app.pause("charge").await;
    app.publish(&order("1", 5)).await;
    app.settle().await;
    assert!(world.calls().is_empty());
    app.faults().lose_confirms(1);
    app.resume("charge").await;
    app.settle_within(Duration::from_secs(7_200)).await;
    let sent = app.envelopes::<Charged>();
    assert_eq!(sent.len(), 2, "{}", app.timeline());
    assert_eq!(sent[0].id, sent[1].id);
}
