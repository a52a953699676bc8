//! Several instances that come and go, and who finds them.

use interline::discovery::Endpoint;
use interline::http::CallErrorKind;
use interline::resilience::CircuitState;
use interline::testing::UpstreamInstance;

use super::*;

const IN_TURN: &str = "balance = \"round_robin\"\nslow_start = \"0s\"";

fn count(instance: &UpstreamInstance) -> usize {
    instance.requests().len()
}

#[tokio::test(start_paused = true)]
async fn instances_come_and_go_while_the_app_runs() {
    let stock = stock();
    let (one, two) = (
        stock.instance("stock-1"),
        stock.instance("http://stock-2:8080"),
    );
    let (app, client) = till(&stock, IN_TURN).await;
    app.until_endpoints("stock", 2).await;
    for _ in 0..4 {
        client.item(7).await.unwrap();
    }
    assert_eq!((count(&one), count(&two)), (2, 2));
    // One that nobody names is not called; one that was added is.
    two.leave();
    let three = stock.instance_of(Endpoint::parse("http://stock-3").unwrap().with_weight(3));
    app.advance(SECOND).await;
    for _ in 0..4 {
        client.item(7).await.unwrap();
    }
    assert_eq!((count(&one), count(&two), count(&three)), (4, 2, 2));
    // What was known stays where nobody says anything.
    stock.discovery_fails("the registry is away");
    three.leave();
    stock.instance("stock-4");
    app.advance(Duration::from_secs(60)).await;
    let status = &app.manager().health().services[0];
    let error = status.sources[0].error.as_deref();
    assert_eq!(error, Some("the registry is away"));
    for _ in 0..4 {
        client.item(7).await.unwrap();
    }
    assert_eq!((count(&one), count(&two), count(&three)), (6, 2, 4));
    // And the last of it all is true once somebody says it again.
    two.start();
    stock.discovery_recovers();
    app.until_endpoints("stock", 3).await;
    assert_eq!(stock.instances().len(), 4);
    let status = &app.manager().health().services[0];
    assert_eq!(status.sources[0].error, None);
}

#[tokio::test(start_paused = true)]
async fn one_that_dies_between_the_head_and_the_body_takes_the_body_with_it() {
    let stock = Upstream::new("stock");
    let one = stock.instance("stock-1");
    let dies = one.clone();
    stock.answer_with(GET, move |_| {
        dies.stop();
        Answer::json(&ITEM)
    });
    let (_app, client) = till(&stock, "retry.attempts = 1").await;
    let error = client.item(7).await.unwrap_err();
    assert_eq!(error.kind(), CallErrorKind::ConnectionLost);
    assert!(error.to_string().contains("was stopped"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn one_that_drains_answers_what_it_has_and_gives_the_rest_back() {
    let stock = stock();
    let (one, two) = (stock.instance("stock-1"), stock.instance("stock-2"));
    one.answer(GET, Answer::json(&ITEM).after(ms(500)));
    stock.answer("POST *", Answer::status(204));
    let (app, client) = till(&stock, IN_TURN).await;
    app.until_endpoints("stock", 2).await;
    // It begins before the other one is told, and ends after it.
    let calls = async { tokio::join!(client.item(1), client.item(2)) };
    let drain = async {
        tokio::time::sleep(ms(100)).await;
        one.drain();
        // Discovery has not told it yet: any call goes elsewhere.
        for _ in 0..4 {
            client.order(&ITEM).await.unwrap();
        }
    };
    let ((calls, took), ()) = tokio::join!(timed(calls), drain);
    assert!(calls.0.is_ok() && calls.1.is_ok());
    assert_eq!(took, ms(500));
    assert_eq!((count(&one), count(&two)), (1, 5));
    app.until_endpoints("stock", 1).await;
}

#[tokio::test(start_paused = true)]
async fn one_that_dies_takes_what_it_has_with_it_and_is_left_alone() {
    let stock = stock();
    let (one, two) = (stock.instance("stock-1"), stock.instance("stock-2"));
    one.answer(GET, Answer::silence());
    let lines = format!("{IN_TURN}\nbreaker.consecutive = 2\nattempt_timeout = \"9s\"");
    let (app, client) = till(&stock, &lines).await;
    app.until_endpoints("stock", 2).await;
    let kill = async {
        tokio::time::sleep(ms(100)).await;
        one.stop();
    };
    let calls = async { tokio::join!(client.item(1), client.item(2), kill) };
    let ((first, second, ()), took) = timed(calls).await;
    // The one that was there is asked again elsewhere.
    assert!(first.is_ok() && second.is_ok());
    assert!(took < SECOND, "{took:?}");
    assert_eq!((count(&one), count(&two)), (1, 2));
    for _ in 0..10 {
        client.item(7).await.unwrap();
    }
    // It refuses connections now, so it gets no requests; and nobody tries any more.
    assert_eq!((count(&one), count(&two)), (1, 12));
    let http = app.manager().http_client("stock").unwrap();
    let endpoints = http.endpoints();
    let dead = endpoints
        .iter()
        .find(|endpoint| *endpoint.url == *one.url())
        .unwrap();
    assert!(dead.is_ejected);
    assert_eq!(dead.circuit.as_ref().unwrap().state(), CircuitState::Open);
}

#[tokio::test(start_paused = true)]
async fn checks_find_the_one_that_is_not_healthy() {
    for (kind, path) in [("http", "/health/ready"), ("tcp", "")] {
        let stock = stock();
        let (one, two) = (stock.instance("stock-1"), stock.instance("stock-2"));
        let lines = format!("{IN_TURN}\nhealth = {{ kind = \"{kind}\", every = \"1s\" }}");
        let (app, client) = till(&stock, &lines).await;
        app.until_endpoints("stock", 2).await;
        if kind == "http" {
            one.answer(path, Answer::status(503));
        } else {
            one.stop();
        }
        app.advance(Duration::from_secs(10)).await;
        for _ in 0..6 {
            client.item(7).await.unwrap();
        }
        // Nor are the checks among the requests.
        assert_eq!((count(&one), count(&two)), (0, 6), "{kind}");
        if kind == "http" {
            one.answer(path, Answer::ok());
        }
        one.start();
        app.advance(Duration::from_secs(10)).await;
        for _ in 0..6 {
            client.item(7).await.unwrap();
        }
        assert_eq!((count(&one), count(&two)), (3, 9), "{kind}");
    }
}

#[tokio::test(start_paused = true)]
async fn checks_are_answered_wherever_the_configuration_lets_them_ask() {
    let stock = stock();
    let one = stock.instance("stock-1");
    let lines = "health = { path = \"/live\", every = \"1s\", unhealthy_after = 1 }";
    let (app, _client) = till(&stock, lines).await;
    app.advance(Duration::from_secs(10)).await;
    let unhealthy = || app.manager().health().services[0].unhealthy;
    assert_eq!(unhealthy(), 0);
    // The test may say something else of them.
    one.answer("GET /live", Answer::status(503));
    app.advance(Duration::from_secs(10)).await;
    assert_eq!(unhealthy(), 1);
    assert!(stock.requests().is_empty());
}

#[tokio::test(start_paused = true)]
async fn health_is_asked_for_and_answered() {
    let stock = stock();
    let one = stock.instance("stock-1");
    let (app, client) = till(&stock, "").await;
    let http = app.manager().http_client("stock").unwrap();
    http.health_check().await.unwrap();
    // It takes what stands there for every path, but not what the test counts on.
    stock.next("*", [Answer::status(404)]);
    stock.next("GET /health/ready", [Answer::status(503)]);
    assert!(http.health_check().await.is_err());
    http.health_check().await.unwrap();
    assert!(stock.requests().is_empty());
    one.drain();
    assert!(http.health_check().await.is_err());
    one.start();
    assert_eq!(client.item(7).await.unwrap_err().status().unwrap(), 404);
    one.stop();
    let error = http.health_check().await.unwrap_err();
    assert_eq!(error.kind(), CallErrorKind::Connect);
}

#[tokio::test(start_paused = true)]
async fn a_program_keeps_its_settings_and_its_addresses() {
    let stock = stock();
    let lines = "urls = [\"http://s1:81\", \"http://s2:82\"]\nbalance = \"weighted\"\n\
                 weights.\"http://s2:82\" = 3\nslow_start = \"0s\"";
    let (app, client) = till(&stock, lines).await;
    app.until_endpoints("stock", 2).await;
    for _ in 0..8 {
        client.item(7).await.unwrap();
    }
    let instances = stock.instances();
    let counts: Vec<_> = instances
        .iter()
        .map(|one| (one.url(), count(one)))
        .collect();
    assert_eq!(counts, [("http://s1:81", 2), ("http://s2:82", 6)]);
}

#[tokio::test(start_paused = true)]
async fn the_name_by_which_an_instance_is_called_is_not_where_it_is() {
    let stock = stock();
    let (one, two) = (stock.instance("10.0.0.1:81"), stock.instance("10.0.0.2:82"));
    let lines = format!("{IN_TURN}\nhost = \"stock.internal\"");
    let (app, client) = till(&stock, &lines).await;
    app.until_endpoints("stock", 2).await;
    for _ in 0..4 {
        client.item(7).await.unwrap();
    }
    for (instance, host) in [(&one, "stock.internal:81"), (&two, "stock.internal:82")] {
        assert_eq!(count(instance), 2);
        assert_eq!(instance.requests()[0].header("host"), Some(host));
    }
}

#[tokio::test(start_paused = true)]
async fn an_instance_with_answers_of_its_own_gives_those_first() {
    let stock = stock();
    let other = Item { id: 7, left: 0 };
    let one = stock.instance("stock-1");
    one.answer(GET, Answer::json(&other));
    stock.next(GET, [Answer::status(404)]);
    one.next(GET, [Answer::status(410)]);
    let (_app, client) = till(&stock, "").await;
    for status in [410, 404] {
        let error = client.item(7).await.unwrap_err();
        assert_eq!(error.status().unwrap().as_u16(), status);
    }
    assert_eq!(client.item(7).await.unwrap(), other);
    one.stop();
    let error = client.item(7).await.unwrap_err();
    assert_eq!(error.kind(), CallErrorKind::RetryExhausted);
}
