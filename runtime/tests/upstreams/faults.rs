//! Each fault, and what exactly comes of it.

use interline::assert_called;
use interline::http::{CallErrorKind, Sent};
use interline::testing::UpstreamRequest;

use super::*;

#[tokio::test(start_paused = true)]
async fn a_script_answers_by_route_and_sees_what_was_sent() {
    let stock = Upstream::new("stock");
    stock.answer("*", Answer::status(404));
    stock.answer_with("GET /api/items/{id}/maybe", |request| {
        match request.segment("id") {
            Some("7") => Answer::json(&ITEM),
            _ => Answer::status(404),
        }
    });
    stock.answer("GET /api/search", Answer::json(&[ITEM]));
    stock.answer("POST /api/orders", Answer::status(204));
    let (app, client) = till(&stock, "").await;
    assert_eq!(client.maybe(7).await.unwrap(), Some(ITEM));
    assert_eq!(client.maybe(8).await.unwrap(), None);
    assert_eq!(client.search("a b&ä", "acme").await.unwrap(), [ITEM]);
    client.order(&ITEM).await.unwrap();
    let error = client.item(7).await.unwrap_err();
    assert_eq!(error.status().unwrap().as_u16(), 404);

    let request = assert_called!(app, stock, "GET /api/search");
    assert_eq!(
        (request.path(), request.method().as_str()),
        ("/api/search", "GET")
    );
    assert_eq!(request.query("text").unwrap(), "a b&ä");
    assert_eq!(request.query("other"), None);
    assert_eq!(request.header("x-tenant"), Some("acme"));
    assert_eq!(request.instance(), "http://stock");
    let order = assert_called!(app, stock, |request: &UpstreamRequest| {
        !request.body().is_empty()
    });
    assert_eq!(order.json::<Item>(), ITEM);
    assert_called!(app, stock, "/api/items/{id}/maybe", times = 2);
    assert_called!(app, stock, "POST /api/orders/once", times = 0);
    assert_eq!(app.upstream("stock").requests().len(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_works_in_real_time_and_on_several_threads() {
    let stock = stock();
    let (one, two) = (stock.instance("stock-1"), stock.instance("stock-2"));
    one.next(GET, vec![Answer::refused(); 5]);
    two.next(GET, vec![Answer::reset(); 5]);
    let (app, client) = till(
        &stock,
        "retry = { attempts = 20, floor = 100 }\nbreaker.enabled = false",
    )
    .await;
    let calls = (0..50).map(|id| {
        let client = client.clone();
        tokio::spawn(async move { client.item(id).await })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap().unwrap();
    }
    app.settle().await;
    let asked = one.requests().len() + two.requests().len();
    assert_eq!(asked, stock.requests().len());
    // Each reset is one more.
    assert!((50..=55).contains(&asked), "{asked}");
}

#[tokio::test(start_paused = true)]
async fn what_the_script_does_not_know_is_a_clear_error() {
    let stock = Upstream::new("stock");
    let (_app, client) = till(&stock, "").await;
    let error = client.item(7).await.unwrap_err();
    assert_eq!(
        (error.status().unwrap().as_u16(), error.attempts()),
        (501, 1)
    );
    let detail = error.problem().unwrap().detail.clone().unwrap();
    let said = "the test says no answer of `stock` to GET /api/items/7";
    assert_eq!(detail, said);
}

#[tokio::test(start_paused = true)]
async fn answers_come_as_late_as_they_say() {
    let stock = Upstream::new("stock");
    stock.answer(GET, Answer::json(&ITEM).after(ms(1_500)));
    let (_app, client) = till(&stock, "").await;
    let (item, took) = timed(client.item(7)).await;
    assert_eq!((item.unwrap(), took), (ITEM, ms(1_500)));
    stock.instance("stock").slow(ms(700));
    assert_eq!(timed(client.item(7)).await.1, ms(2_200));
    // A body in pieces of ten bytes: `{"id":7,"left":3}` is two of them.
    stock.answer(GET, Answer::json(&ITEM).slowly(10, SECOND));
    let (item, took) = timed(client.item(7)).await;
    assert_eq!((item.unwrap(), took), (ITEM, ms(2_700)));
}

#[tokio::test(start_paused = true)]
async fn a_time_out_of_half_a_minute_takes_no_time() {
    let real = std::time::Instant::now();
    let stock = Upstream::new("stock");
    stock.answer(GET, Answer::silence());
    let (_app, client) = till(&stock, "timeout = \"30s\"").await;
    let (error, took) = timed(client.item(7)).await;
    let error = error.unwrap_err();
    assert_eq!(error.kind(), CallErrorKind::Timeout);
    assert_eq!((error.attempts(), error.is_sent()), (1, Sent::Maybe));
    assert_eq!(took, Duration::from_secs(30));
    // Within the body it is the same.
    stock.answer(GET, Answer::json(&ITEM).stalls_after(4));
    let (error, took) = timed(client.item(7)).await;
    assert_eq!(error.unwrap_err().kind(), CallErrorKind::Timeout);
    assert_eq!(took, Duration::from_secs(30));
    assert!(
        real.elapsed() < Duration::from_secs(20),
        "{:?}",
        real.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn without_a_connection_any_call_is_repeated() {
    let stock = Upstream::new("stock");
    stock.answer("*", Answer::status(204));
    let lines = "connect_timeout = \"3s\"\nretry = { first = \"100ms\", jitter = \"none\" }";
    let (_app, client) = till(&stock, lines).await;
    for (fault, wait) in [
        (Answer::refused(), Duration::ZERO),
        (Answer::unreachable(), Duration::from_secs(3)),
        (Answer::given_back(), Duration::ZERO),
        (Answer::going_away(), Duration::ZERO),
    ] {
        stock.next("*", [fault.clone()]);
        let (result, took) = timed(client.order(&ITEM)).await;
        result.unwrap();
        assert_eq!(took, wait + ms(100), "{fault:?}");
    }
    stock.next("*", vec![Answer::refused(); 3]);
    let error = client.order(&ITEM).await.unwrap_err();
    assert_eq!(error.kind(), CallErrorKind::RetryExhausted);
    assert_eq!((error.attempts(), error.is_sent()), (3, Sent::No));
    assert!(error.to_string().contains("connection refused"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn what_may_have_arrived_is_repeated_only_where_that_is_safe() {
    let stock = stock();
    stock.answer("POST *", Answer::status(204));
    let (app, client) = till(&stock, "").await;
    stock.next("*", [Answer::reset()]);
    let error = client.order(&ITEM).await.unwrap_err();
    assert_eq!(error.kind(), CallErrorKind::ConnectionLost);
    assert_eq!((error.attempts(), error.is_sent()), (1, Sent::Maybe));
    stock.next("*", [Answer::reset(), Answer::status(503)]);
    client.order_once(&ITEM).await.unwrap();
    let all = assert_called!(app, stock, "POST /api/orders/once", times = 3);
    let attempts: Vec<_> = all.iter().map(UpstreamRequest::attempt).collect();
    assert_eq!(attempts, [Some(1), Some(2), Some(3)]);
    let keys: Vec<_> = all
        .iter()
        .map(|one| one.header("idempotency-key"))
        .collect();
    assert!(
        keys[0].is_some() && keys.iter().all(|key| *key == keys[0]),
        "{keys:?}"
    );
    // A head has come, and the rest has not.
    stock.next(GET, [Answer::json(&ITEM).breaks_off_after(4)]);
    assert_eq!(client.item(7).await.unwrap(), ITEM);
    assert_called!(app, stock, "GET /api/items/7", times = 2);
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_something_else_is_no_answer() {
    let stock = stock();
    let (_app, client) = till(&stock, "response_bytes_max = 64").await;
    stock.next(
        GET,
        [
            Answer::ok().body("<html>"),
            Answer::ok().body([b' '; 65].to_vec()),
        ],
    );
    let error = client.item(7).await.unwrap_err();
    assert_eq!((error.kind(), error.attempts()), (CallErrorKind::Decode, 1));
    let error = client.item(7).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.attempts()),
        (CallErrorKind::TooLarge, 1)
    );
    // Also where the length is not said before.
    let piece = |_| (ms(1), vec![b' '; 10]);
    stock.next(GET, [Answer::ok().pieces((0..7).map(piece))]);
    let error = client.item(7).await.unwrap_err();
    assert_eq!(error.kind(), CallErrorKind::TooLarge);
}

#[tokio::test(start_paused = true)]
async fn a_stream_comes_in_pieces_stalls_and_breaks_off() {
    let stock = Upstream::new("stock");
    let file = "GET /api/file";
    let (_app, client) = till(&stock, "stream_idle_timeout = \"20s\"").await;
    stock.next(
        file,
        [Answer::ok()
            .body("abcdef")
            .slowly(2, Duration::from_secs(15))],
    );
    let mut stream = client.file().await.unwrap();
    let begun = Instant::now();
    for (place, piece) in ["ab", "cd", "ef"].into_iter().enumerate() {
        assert_eq!(stream.next().await.unwrap().unwrap(), piece);
        assert_eq!(
            begun.elapsed(),
            Duration::from_secs(15) * (place as u32 + 1)
        );
    }
    assert!(stream.next().await.is_none());

    stock.next(file, [Answer::ok().body("abcdef").stalls_after(4)]);
    let mut stream = client.file().await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap(), "abcd");
    let (error, took) = timed(stream.next()).await;
    assert_eq!(error.unwrap().unwrap_err().kind(), CallErrorKind::Timeout);
    assert_eq!(took, Duration::from_secs(20));

    stock.next(file, [Answer::ok().body("abcdef").breaks_off_after(4)]);
    let mut stream = client.file().await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap(), "abcd");
    let error = stream.next().await.unwrap().unwrap_err();
    assert_eq!(error.kind(), CallErrorKind::ConnectionLost);
    assert!(error.to_string().contains("reset after 4 bytes"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn what_came_while_nobody_read_is_there_and_was_no_silence() {
    let stock = Upstream::new("stock");
    let slow = Answer::ok()
        .body("abcdef")
        .slowly(2, Duration::from_secs(25));
    stock.answer("GET /api/file", slow);
    let (_app, client) = till(&stock, "stream_idle_timeout = \"20s\"").await;
    let mut stream = client.file().await.unwrap();
    for piece in ["ab", "cd", "ef"] {
        tokio::time::sleep(Duration::from_secs(60)).await;
        let (read, took) = timed(stream.next()).await;
        assert_eq!((read.unwrap().unwrap(), took), (piece.into(), ms(0)));
    }
    assert!(stream.next().await.is_none());
    // Whoever waits for them finds that it is silent for too long.
    let mut stream = client.file().await.unwrap();
    let (error, took) = timed(stream.next()).await;
    assert_eq!(error.unwrap().unwrap_err().kind(), CallErrorKind::Timeout);
    assert_eq!(took, Duration::from_secs(20));
}
