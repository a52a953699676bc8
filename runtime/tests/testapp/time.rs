//! Time that takes no time, and when it is over.

use super::*;

#[tokio::test(start_paused = true)]
async fn retries_after_hours_take_no_time() {
    let begun = Instant::now();
    let world = World::failing(3);
    let app = shop(&world).await;
    app.publish(&order("1", 5)).await;
    app.settle().await;
    assert_eq!(world.calls(), ["charge 1 #1"], "the retry is not due");
    app.advance(Duration::from_secs(1_000)).await;
    assert_eq!(world.calls().len(), 1, "the retry is not due yet");
    app.advance(Duration::from_secs(3_600)).await;
    assert_eq!(world.calls(), ["charge 1 #1", "charge 1 #2"]);
    assert_not_published!(app, Charged);
    app.settle_within(Duration::from_secs(3 * 3_600)).await;
    assert_eq!(
        world.calls(),
        [
            "charge 1 #1",
            "charge 1 #2",
            "charge 1 #3",
            "charge 1 #4",
            "receipt 1"
        ]
    );
    assert_published!(app, Charged);
    assert!(
        begun.elapsed() < Duration::from_secs(20),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn attempts_that_run_out_end_as_a_dead_letter() {
    let world = World::failing(10);
    let app = shop(&world).await;
    app.publish(&order("1", 5)).await;
    app.settle_within(Duration::from_secs(24 * 3_600)).await;
    let letter = assert_dead_lettered!(app, charge, reason = "retries_exhausted");
    assert_eq!(letter.attempts(), Some(4));
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_run() {
    let mut runs = Vec::new();
    for _ in 0..2 {
        let world = World::failing(2);
        let app = shop(&world).await;
        app.publish_raw(
            "orders.placed",
            r#"{"order_id":"9","cents":3}"#,
            Headers::new(),
        )
        .await;
        app.settle_within(Duration::from_secs(24 * 3_600)).await;
        assert_eq!(app.seed(), 7);
        runs.push(app.timeline());
    }
    assert_eq!(runs[0], runs[1]);
}

#[tokio::test]
async fn it_works_in_real_time_too_except_advance() {
    let world = World::default();
    let app = shop(&world).await;
    app.publish(&order("1", 5)).await;
    assert_published!(app, Sent);
    let text = panic_of(async move { app.advance(Duration::from_secs(1)).await }).await;
    assert!(text.contains("start_paused = true"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn messages_that_cause_each_other_for_ever_meet_a_limit() {
    let app = TestApp::new()
        .register::<echo>()
        .settle_limit(Duration::from_millis(200))
        .start()
        .await;
    app.publish(&Ping).await;
    let text = panic_of(async move { app.settle().await }).await;
    assert!(
        text.starts_with(
            "the app did not come to rest within 200ms of real time:\n  broker main: "
        ),
        "{text}"
    );
    assert!(text.contains("earlier events"), "{text}");
}
