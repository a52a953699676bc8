//! What stands around a call, by virtual time: what happens, and exactly when.

use interline::http::CallErrorKind;
use interline::testing::UpstreamRequest;

use super::*;

#[tokio::test(start_paused = true)]
async fn repeats_come_when_their_waits_are_over() {
    let stock = Upstream::new("stock");
    stock.answer(GET, Answer::status(503));
    let lines = "retry = { attempts = 4, first = \"100ms\", jitter = \"none\", floor = 100 }";
    let (_app, client) = till(&stock, lines).await;
    let (error, took) = timed(client.item(7)).await;
    let error = error.unwrap_err();
    assert_eq!(
        (error.kind(), error.attempts()),
        (CallErrorKind::RetryExhausted, 4)
    );
    assert_eq!(times(&stock), [ms(0), ms(100), ms(300), ms(700)]);
    assert_eq!(took, ms(700));
    // The only instance there is names a time.
    stock.next(
        GET,
        [
            Answer::status(503).header("retry-after", "5"),
            Answer::json(&ITEM),
        ],
    );
    assert_eq!(timed(client.item(7)).await.1, Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn repeats_end_with_the_budget() {
    let stock = Upstream::new("stock");
    stock.answer(GET, Answer::status(503));
    for (budget, expected) in [(0, 1), (1, 2)] {
        let lines = format!("retry = {{ budget = {budget}.0, floor = 0 }}");
        let (_app, client) = till(&stock, &lines).await;
        let error = client.item(7).await.unwrap_err();
        assert_eq!(error.attempts(), expected);
        assert!(
            error.to_string().contains("too many recent calls"),
            "{error}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn the_time_that_is_left_stands_on_the_wire() {
    let stock = stock();
    let slow = Answer::status(503).after(ms(400));
    stock.next(GET, [slow.clone(), Answer::silence(), slow]);
    let lines = "timeout = \"3s\"\nattempt_timeout = \"1s\"\n\
                 retry = { first = \"100ms\", jitter = \"none\" }";
    let (_app, client) = till(&stock, lines).await;
    let (error, took) = timed(client.item(7)).await;
    assert_eq!(error.unwrap_err().kind(), CallErrorKind::RetryExhausted);
    // An answer after 400 ms, none within a second, an answer after 400 ms; 100 and 200 ms between.
    assert_eq!(times(&stock), [ms(0), ms(500), ms(1_700)]);
    assert_eq!(took, ms(2_100));
    let left = |request: &UpstreamRequest| request.time_left().unwrap();
    let left: Vec<_> = stock.requests().iter().map(left).collect();
    assert_eq!(left, [SECOND; 3]);
    // The last attempt has what the call has left.
    stock.next(GET, vec![Answer::silence(); 3]);
    let (error, took) = timed(client.item(7)).await;
    assert_eq!(error.unwrap_err().attempts(), 3);
    assert_eq!(took, ms(3_000));
    let last = stock.requests().pop().unwrap();
    assert_eq!(last.time_left(), Some(ms(700)));
}

#[tokio::test(start_paused = true)]
async fn a_circuit_opens_after_so_many_failures_and_half_opens_when_its_time_is_over() {
    let stock = stock();
    let down = Answer::status(500);
    stock.next(GET, vec![down.clone(); 4]);
    let lines = "retry.attempts = 1\nbreaker = { consecutive = 3, open = \"30s\" }";
    let (app, client) = till(&stock, lines).await;
    for _ in 0..3 {
        assert_eq!(
            client.item(7).await.unwrap_err().kind(),
            CallErrorKind::Status
        );
    }
    let error = client.item(7).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.attempts()),
        (CallErrorKind::CircuitBreakerOpen, 0)
    );
    let open = error.retry_after().unwrap();
    assert!(
        open >= Duration::from_secs(27) && open <= Duration::from_secs(33),
        "{open:?}"
    );
    app.advance(open - ms(2)).await;
    let error = client.item(7).await.unwrap_err();
    assert_eq!(error.kind(), CallErrorKind::CircuitBreakerOpen);
    assert_eq!(stock.requests().len(), 3);
    // The probe fails, and it is open again.
    app.advance(ms(2)).await;
    assert_eq!(
        client.item(7).await.unwrap_err().kind(),
        CallErrorKind::Status
    );
    let error = client.item(7).await.unwrap_err();
    assert_eq!(error.kind(), CallErrorKind::CircuitBreakerOpen);
    app.advance(error.retry_after().unwrap()).await;
    assert_eq!(client.item(7).await.unwrap(), ITEM);
    assert_eq!(stock.requests().len(), 5);
}

#[tokio::test(start_paused = true)]
async fn the_second_request_is_sent_when_its_time_has_come() {
    let stock = stock();
    stock.next(
        GET,
        [
            Answer::json(&ITEM).after(SECOND),
            Answer::json(&ITEM).after(ms(20)),
        ],
    );
    let (one, two) = (stock.instance("stock-1"), stock.instance("stock-2"));
    let (_app, client) = till(&stock, "hedge = { after = \"80ms\", share = 1.0 }").await;
    let (item, took) = timed(client.item(7)).await;
    assert_eq!((item.unwrap(), took), (ITEM, ms(100)));
    assert_eq!(times(&stock), [ms(0), ms(80)]);
    assert_eq!((one.requests().len(), two.requests().len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_kept_expires_and_covers_a_service_that_fails() {
    let stock = Upstream::new("stock");
    let safe = "GET /api/safe/{id}";
    stock.next(safe, [Answer::json(&1), Answer::json(&2)]);
    let (app, client) = till(&stock, "retry.attempts = 1").await;
    assert_eq!(client.covered(7).await.unwrap(), 1);
    app.advance(Duration::from_secs(59)).await;
    assert_eq!(client.covered(7).await.unwrap(), 1);
    assert_eq!(stock.requests().len(), 1);
    app.advance(Duration::from_secs(2)).await;
    assert_eq!(client.covered(7).await.unwrap(), 2);
    assert_eq!(stock.requests().len(), 2);
    // It is old, and there is none other: for an hour after its time was over.
    stock.instance("stock").stop();
    app.advance(Duration::from_secs(1_800)).await;
    assert_eq!(client.covered(7).await.unwrap(), 2);
    app.advance(Duration::from_secs(1_900)).await;
    assert_eq!(
        client.covered(7).await.unwrap_err().kind(),
        CallErrorKind::Connect
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_for_behind_an_old_answer_is_settled_too() {
    let stock = Upstream::new("stock");
    let old = "GET /api/old/{id}";
    stock.next(old, [Answer::json(&1), Answer::json(&2).after(ms(300))]);
    let (app, client) = till(&stock, "").await;
    assert_eq!(client.aging(7).await.unwrap(), 1);
    app.advance(Duration::from_secs(61)).await;
    let (left, took) = timed(client.aging(7)).await;
    assert_eq!((left.unwrap(), took), (1, Duration::ZERO));
    // It is answered later than now.
    app.settle().await;
    assert_eq!(client.aging(7).await.unwrap(), 1);
    let ((), took) = timed(app.settle_within(SECOND)).await;
    assert_eq!(took, ms(300));
    assert_eq!(client.aging(7).await.unwrap(), 2);
    assert_eq!(stock.requests().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_rate_refuses_or_makes_wait_and_passes_with_time() {
    let stock = stock();
    let (app, client) = till(&stock, "rate = { count = 2, per = \"10s\" }").await;
    for _ in 0..2 {
        client.item(7).await.unwrap();
    }
    let error = client.item(7).await.unwrap_err();
    assert_eq!(error.kind(), CallErrorKind::RateLimited);
    assert_eq!(error.retry_after(), Some(Duration::from_secs(5)));
    app.advance(Duration::from_secs(5)).await;
    client.item(7).await.unwrap();
    assert_eq!(stock.requests().len(), 3);

    let stock = super::stock();
    let lines = "rate = { count = 2, per = \"10s\", burst = 1, wait = \"6s\" }";
    let (_app, client) = till(&stock, lines).await;
    let (one, two) = tokio::join!(client.item(1), client.item(2));
    assert!(one.is_ok() && two.is_ok());
    assert_eq!(times(&stock), [ms(0), ms(5_000)]);
}

#[tokio::test(start_paused = true)]
async fn calls_wait_for_a_place_or_are_refused() {
    let stock = Upstream::new("stock");
    stock.answer(GET, Answer::json(&ITEM).after(SECOND));
    let (_app, client) = till(&stock, "concurrency = 1\nqueue = 1").await;
    let calls = async { tokio::join!(client.item(1), client.item(2), client.item(3)) };
    let ((one, two, three), took) = timed(calls).await;
    assert!(one.is_ok() && two.is_ok());
    assert_eq!(three.unwrap_err().kind(), CallErrorKind::BulkheadFull);
    assert_eq!((times(&stock), took), (vec![ms(0), SECOND], SECOND * 2));
}
