//! What a failure says: dead letters, assertions, the timeline.

use super::*;

#[tokio::test(start_paused = true)]
async fn dead_letters_are_found_by_reason() {
    let world = World::default();
    let app = shop(&world).await;
    assert!(app.dead_letters("charge").await.is_empty());
    app.publish(&order("1", 0)).await;
    assert_dead_lettered!(app, charge);
    let letter = assert_dead_lettered!(app, charge, reason = "rejected");
    assert_eq!(letter.error().unwrap(), "nothing to charge");
    assert_eq!(letter.attempts(), Some(1));
    assert_not_published!(app, Charged);
}

#[tokio::test(start_paused = true)]
async fn a_failed_assertion_tells_what_happened_and_how_to_see_it_again() {
    let world = World::failing(1);
    let app = shop(&world).await;
    let other = order("2", 5);
    app.publish(&order("1", 5)).await;
    app.publish(&other).await;
    app.settle().await;
    let charged = app.envelopes::<Charged>()[0].id.clone();
    let sent = app.envelopes::<Sent>()[0].id.clone();
    let text = panic_of(async move {
        assert_published!(app, Charged { order_id: "1", .. });
    })
    .await;
    let expected = format!(
        "expected a published `Charged {{ order_id: \"1\", .. }}` (topic billing.charged)
published instead:
  billing.charged  Charged {{\"order_id\":\"2\",\"cents\":5}} (id {charged})
  mail.sent  Sent {{\"order_id\":\"2\"}} (id {sent})

timeline:
     0.000s  test connected
     0.000s  run-1 connected
     0.000s  #1 published orders.placed by test (id 1)
     0.000s  #1 billing.orders.placed -> run-1, attempt 1
     0.000s  #2 published orders.placed by test (id 2)
     0.000s  #2 billing.orders.placed -> run-1, attempt 1
     0.000s  #1 attempt 1 failed (error): bank unreachable
     0.000s  #1 to be retried after 1h in billing.orders.placed
     0.000s    #3 published billing.charged by run-1 (id {charged}, because of #2)
     0.000s    #3 billing.billing.charged -> run-1, attempt 1
     0.000s  #2 done in billing.orders.placed
     0.000s      #4 published mail.sent by run-1 (id {sent}, because of #3, no subscription)
     0.000s    #3 done in billing.billing.charged

seed 7; to replay: INTERLINE_TEST_SEED=7 cargo test \
         reports::a_failed_assertion_tells_what_happened_and_how_to_see_it_again
"
    );
    assert_eq!(text, expected);

    let text = panic_of(failed(|app| async move {
        assert_not_published!(app, |charged: &Charged| charged.cents == 5);
    }))
    .await;
    assert!(
        text.starts_with(&format!(
            "expected no published `|charged: &Charged| charged.cents == 5` (topic \
             billing.charged)\npublished:\n  billing.charged  Charged \
             {{\"order_id\":\"2\",\"cents\":5}} (id {charged})\n\ntimeline:\n"
        )),
        "{text}"
    );
    let text = panic_of(failed(|app| async move {
        app.publish(&order("0", 0)).await;
        assert_dead_lettered!(app, charge, reason = "retries_exhausted");
    }))
    .await;
    let expected = "expected a dead letter of `charge` with reason `retries_exhausted`\n\
                    dead letters of `charge`:\n  rejected after 1 attempt: nothing to charge (id \
                    0)\n\ntimeline:\n";
    assert!(text.starts_with(expected), "{text}");
    let text = panic_of(failed(|app| async move {
        assert_dead_lettered!(app, send_receipt);
    }))
    .await;
    assert!(
        text.starts_with(
            "expected a dead letter of `send_receipt`\ndead letters of `send_receipt`: none\n"
        ),
        "{text}"
    );
}

/// A test that fails after the order `2` was charged.
async fn failed<F: Future<Output = ()>>(test: impl FnOnce(TestApp) -> F) {
    let app = shop(&World::default()).await;
    app.publish(&order("2", 5)).await;
    test(app).await;
}

#[tokio::test(start_paused = true)]
async fn a_publish_of_the_test_that_fails_says_why() {
    let app = shop(&World::default()).await;
    app.faults().nack(1);
    let text = panic_of(async move {
        app.publish(&order("1", 5)).await;
    })
    .await;
    assert!(
        text.starts_with("the test's own publish failed: "),
        "{text}"
    );
    assert!(
        text.contains("#1 refused orders.placed of test: nacked (id 1)"),
        "{text}"
    );

    let app = shop(&World::default()).await;
    let text = panic_of(async move { app.pause("charg").await }).await;
    assert_eq!(
        text,
        "no subscriber `charg` is running; did you mean `charge`?"
    );
}

/// Fails in every way there is.
#[subscriber(timeout = "1s", retry(attempts = 2, first = "5s", max = "5s"))]
async fn fragile(job: Task) {
    match job.kind.as_str() {
        "panic" => panic!("out of paper"),
        "slow" => tokio::time::sleep(Duration::from_secs(60)).await,
        _ => {}
    }
}

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "tasks", id = kind)]
struct Task {
    kind: String,
}

#[tokio::test(start_paused = true)]
async fn the_timeline_says_why_attempts_failed_and_when() {
    let app = TestApp::new().register::<fragile>().seed(1).start().await;
    app.publish(&Task {
        kind: "panic".into(),
    })
    .await;
    app.advance(Duration::from_secs(10)).await;
    app.publish(&Task {
        kind: "slow".into(),
    })
    .await;
    app.settle_within(Duration::from_secs(60)).await;
    let raw = app.publish_raw("tasks", "no json", Headers::new()).await;
    app.settle().await;
    let expected = format!(
        "     0.000s  test connected
     0.000s  run-1 connected
     0.000s  #1 published tasks by test (id panic)
     0.000s  #1 billing.tasks -> run-1, attempt 1
     0.000s  #1 attempt 1 failed (panic): out of paper
     0.000s  #1 to be retried after 5s in billing.tasks
     5.000s  #1 due again in billing.tasks
     5.000s  #1 billing.tasks -> run-1, attempt 2
     5.000s  #1 attempt 2 failed (panic): out of paper
     5.000s  #1 dead-lettered in billing.tasks
    10.000s  #2 published tasks by test (id slow)
    10.000s  #2 billing.tasks -> run-1, attempt 1
    11.000s  #2 attempt 1 failed (timeout): `fragile` took longer than 1s
    11.000s  #2 to be retried after 5s in billing.tasks
    16.000s  #2 due again in billing.tasks
    16.000s  #2 billing.tasks -> run-1, attempt 2
    17.000s  #2 attempt 2 failed (timeout): `fragile` took longer than 1s
    17.000s  #2 dead-lettered in billing.tasks
    17.000s  #3 published tasks by test (id {raw})
    17.000s  #3 billing.tasks -> run-1, attempt 1
    17.000s  #3 attempt 1 failed (decode): json: expected ident at line 1 column 2
    17.000s  #3 dead-lettered in billing.tasks
"
    );
    assert_eq!(app.timeline(), expected);
}
