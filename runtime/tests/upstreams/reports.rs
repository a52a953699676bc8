//! Handlers that call, and what the timeline tells of it.

use interline::http::BodyStream;
use interline::{assert_called, assert_published};

use super::*;

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "orders.taken", id = id)]
struct Taken {
    id: String,
    item: u32,
}

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "orders.reserved", subscribers = optional)]
struct Reserved {
    id: String,
    left: u32,
}

#[subscriber(retry(attempts = 3, first = "1h", max = "1h"))]
async fn reserve(taken: Taken, stock: State<StockClient>) -> Result<Reserved, CallError> {
    let item = stock.item(taken.item).await?;
    Ok(Reserved {
        id: taken.id,
        left: item.left,
    })
}

async fn orders(stock: &Upstream) -> TestApp {
    let app = TestApp::new().register::<reserve>().upstream(stock);
    app.seed(7).start().await
}

fn taken(id: &str) -> Taken {
    Taken {
        id: id.into(),
        item: 7,
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_calls_is_retried_with_what_it_calls() {
    let stock = stock();
    stock.next(GET, vec![Answer::status(503); 3]);
    let app = orders(&stock).await;
    app.publish(&taken("1")).await;
    app.settle().await;
    assert_called!(app, stock, "GET /api/items/7", times = 3);
    app.advance(Duration::from_secs(3_600)).await;
    let reserved = assert_published!(app, Reserved { id: "1", .. });
    assert_eq!(reserved.left, 3);
    let last = assert_called!(app, stock, "GET /api/items/7", times = 4)
        .pop()
        .unwrap();
    assert_eq!(
        (last.attempt(), last.header("causation-id")),
        (Some(1), Some("1"))
    );
    assert!(last.at() >= Duration::from_secs(3_600), "{:?}", last.at());
}

#[tokio::test(start_paused = true)]
async fn a_handler_has_no_more_time_than_its_message() {
    let stock = Upstream::new("stock");
    stock.answer(GET, Answer::silence());
    let app = orders(&stock).await;
    app.publish(&taken("1")).await;
    let ((), took) = timed(app.settle()).await;
    // The call has ten seconds of its own, the handler thirty.
    assert_eq!(took, Duration::from_secs(10));
    let request = assert_called!(app, stock, "GET /api/items/7");
    assert_eq!(request.time_left(), Some(Duration::from_secs(10)));
}

#[tokio::test(start_paused = true)]
async fn a_crash_ends_what_is_called_and_the_next_run_calls_again() {
    let stock = stock();
    stock.next(GET, [Answer::silence()]);
    let app = orders(&stock).await;
    app.publish(&taken("1")).await;
    while stock.requests().is_empty() {
        tokio::task::yield_now().await;
    }
    app.crash().await;
    app.restart().await;
    assert_published!(app, Reserved { id: "1", .. });
    assert_eq!(stock.requests().len(), 2);
    let told = "stock has not answered, and nobody waits for it any more: GET /api/items/7";
    assert!(app.timeline().contains(told), "{}", app.timeline());
}

#[tokio::test(start_paused = true)]
async fn a_failed_assertion_tells_the_calls_among_what_happened() {
    let stock = stock();
    let hedged = Answer::status(503).after(ms(20));
    stock.next(GET, [hedged, Answer::json(&ITEM).breaks_off_after(4)]);
    let toml = "service.name = \"till\"\n[services.stock.retry]\njitter = \"none\"";
    let config = Config::from_toml("interline.toml", toml).unwrap();
    let app = TestApp::new().config(config).register::<reserve>();
    let app = app.upstream(&stock).seed(7).start().await;
    app.publish(&taken("1")).await;
    app.settle().await;
    let sent = app.envelopes::<Reserved>()[0].id.clone();
    let text = panic_of(async move {
        assert_called!(app, stock, "POST /api/orders");
    })
    .await;
    let expected = format!(
        "expected a request `POST /api/orders` to `stock`
asked:
       0.000s  GET /api/items/7 of http://stock
       0.070s  GET /api/items/7 of http://stock
       0.170s  GET /api/items/7 of http://stock

timeline:
     0.000s  test connected
     0.000s  run-1 connected
     0.000s  #1 published orders.taken by test (id 1)
     0.000s  #1 till.orders.taken -> run-1, attempt 1
     0.000s  #1 GET /api/items/7 -> stock
     0.020s  #1 stock answers 503: GET /api/items/7
     0.070s  #1 GET /api/items/7 -> stock, attempt 2
     0.070s  #1 stock answers 200 and breaks off after 4 bytes: GET /api/items/7
     0.170s  #1 GET /api/items/7 -> stock, attempt 3
     0.170s  #1 stock answers 200: GET /api/items/7
     0.170s    #2 published orders.reserved by run-1 (id {sent}, because of #1, no subscription)
     0.170s  #1 done in till.orders.taken

seed 7; to replay: INTERLINE_TEST_SEED=7 cargo test \
         reports::a_failed_assertion_tells_the_calls_among_what_happened
"
    );
    assert_eq!(text, expected);
}

#[tokio::test(start_paused = true)]
async fn a_wrong_count_is_told() {
    let stock = stock();
    let (app, client) = till(&stock, "").await;
    let one = stock.instance("stock");
    client.item(7).await.unwrap();
    let text = panic_of(async move {
        assert_called!(app, one, "GET *", times = 2);
    })
    .await;
    let expected = "expected 2 requests `GET *` to `http://stock`, and there were 1\nasked:\n";
    assert!(text.starts_with(expected), "{text}");
    assert!(text.contains("s  GET /api/items/7 -> stock\n"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_calls() {
    let mut runs = Vec::new();
    for _ in 0..2 {
        let stock = stock();
        let (one, two) = (stock.instance("stock-1"), stock.instance("stock-2"));
        one.slow(ms(30));
        two.next(GET, vec![Answer::status(503); 5]);
        let app = orders(&stock).await;
        for id in 0..20 {
            app.publish(&taken(&id.to_string())).await;
        }
        app.settle_within(Duration::from_secs(3 * 3_600)).await;
        runs.push(app.timeline());
    }
    assert!(runs[0].contains("stock-2 answers 503"), "{}", runs[0]);
    assert_eq!(runs[0], runs[1]);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_the_test_holds_and_nobody_polls_is_named() {
    let stock = Upstream::new("stock");
    stock.answer(GET, Answer::json(&ITEM).after(ms(500)));
    let (app, client) = till(&stock, "").await;
    let text = panic_of(async move {
        let mut call = std::pin::pin!(client.item(7));
        tokio::select! {
            biased;
            _ = &mut call => unreachable!("it takes half a second"),
            () = tokio::time::sleep(ms(1)) => {}
        }
        app.advance(SECOND).await;
    })
    .await;
    let expected = "
  due call: GET /api/items/7 at http://stock
  a call that the test itself has begun has to be spawned
";
    assert!(text.contains(expected), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_body_the_test_still_sends_keeps_nothing_from_rest() {
    let stock = Upstream::new("stock");
    let late = Answer::ok().body("text").slowly(4, Duration::from_secs(9));
    stock.answer("GET /api/file", late);
    stock.answer("PUT /copy", Answer::status(204));
    let (app, client) = till(&stock, "").await;
    let http = app.manager().http_client("stock").unwrap();
    let body = BodyStream::new(client.file().await.unwrap());
    let copy = async move { http.put("/copy").stream(body).receive_nothing().await };
    let copy = tokio::spawn(copy);
    let ((), took) = timed(app.advance(SECOND)).await;
    assert_eq!((took, stock.requests().len()), (SECOND, 1));
    copy.await.unwrap().unwrap();
    let request = assert_called!(app, stock, "PUT /copy");
    assert_eq!(request.body(), "text".as_bytes());
}
