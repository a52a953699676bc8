//! A rate of calls that several instances of a program keep together, on a real Redis.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use interline::http::{CallErrorKind, HttpClient, Sent};
use interline::observability::metrics::{HEDGES, InMemoryMetrics, RATE_ALONE, RATE_LIMITED};
use interline::prelude::*;
use interline::testing::ServerFixture;
use interline_tests::harness::{self, Case};
use interline_tests::redis::Database;
use interline_tests::servers::{self, Server};

use tokio::task::JoinSet;
use tokio::time::sleep;

use upstream::Upstream;

mod upstream;

type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// The longest that anything may take that is expected to happen.
const LIMIT: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    let redis = |case: Case| case.needs(Server::Redis);
    harness::run([
        redis(Case::new("two_instances_keep_one_rate", one_rate)),
        redis(Case::new("a_turn_is_waited_for", waited_for)),
        redis(Case::new("a_slower_rate_of_before_is_forgotten", slower)),
        redis(Case::new("a_forgotten_script_is_sent_again", forgotten)),
        redis(Case::new("nothing_is_left_behind_on_the_server", expires)),
        redis(Case::new("a_dead_server_opens_or_closes", dead)),
        redis(Case::new("a_frozen_server_holds_nobody_up", frozen)),
        redis(Case::new(
            "a_turn_that_nobody_waits_for_comes_back",
            given_up,
        )),
        redis(Case::new("a_turn_that_comes_too_late_comes_back", late)),
        redis(Case::new("second_requests_keep_the_rate", hedges)),
    ])
}

/// An instance of the program, with a client of the service.
struct Instance {
    stock: HttpClient,
    metrics: Arc<InMemoryMetrics>,
    _running: Running,
}

impl Instance {
    async fn start(upstream: &Upstream, redis: &str, lines: &str) -> Self {
        let toml = format!(
            "service.name = \"till\"\n[services.stock]\nurls = [\"{}\"]\n\
             rate.redis.url = \"{redis}\"\n{lines}",
            upstream.url()
        );
        let config = Config::from_toml("interline.toml", &toml).unwrap();
        let metrics = Arc::new(InMemoryMetrics::default());
        let app = App::new(config).named_only().publish_only();
        let app = app.metrics(Arc::<InMemoryMetrics>::clone(&metrics));
        let running = app.launch().await.unwrap();
        Self {
            stock: running.manager().http_client("stock").unwrap(),
            metrics,
            _running: running,
        }
    }

    async fn call(&self) -> Result<(), CallError> {
        self.stock.get("/items").receive_bytes().await.map(drop)
    }

    /// Calls this often; gives how many calls were made.
    async fn call_often(&self, count: usize) -> usize {
        let mut made = 0;
        for _ in 0..count {
            match self.call().await {
                Ok(()) => made += 1,
                Err(error) => assert_eq!(error.kind(), CallErrorKind::RateLimited, "{error}"),
            }
        }
        made
    }
}

/// An hour, so that no turn comes back while the test runs.
const TWENTY: &str = "rate.count = 20\nrate.per = \"1h\"\nrate.redis.answer_within = \"10s\"";

async fn one_rate() -> Outcome {
    let database = Database::create_on(servers::redis().await?).await?;
    let upstream = Upstream::start().await?;
    let one = Instance::start(&upstream, &database.url, TWENTY).await;
    let two = Instance::start(&upstream, &database.url, TWENTY).await;
    let (of_one, of_two) = tokio::join!(one.call_often(25), two.call_often(25));
    assert_eq!((of_one + of_two, upstream.count()), (20, 20));
    let error = one.call().await.unwrap_err();
    assert_eq!((error.attempts(), error.is_sent()), (0, Sent::No));
    let wait = error.retry_after().expect("a time");
    let turn = Duration::from_secs(180);
    assert!(wait <= turn && wait > turn / 2, "{wait:?}");
    assert_eq!(one.metrics.sum(RATE_LIMITED, &[]), (26 - of_one) as f64);
    assert_eq!(one.metrics.sum(RATE_ALONE, &[]), 0.0);
    // Another service has a rate of its own, and so has whoever names another key.
    let lines = format!("{TWENTY}\nrate.redis.key = \"another\"");
    let other = Instance::start(&upstream, &database.url, &lines).await;
    assert_eq!(other.call_often(25).await, 20);
    database.delete().await?;
    Ok(())
}

async fn waited_for() -> Outcome {
    let database = Database::create_on(servers::redis().await?).await?;
    let upstream = Upstream::start().await?;
    let lines = "rate.count = 20\nrate.burst = 1\nrate.wait = \"10s\"\n\
                 rate.redis.answer_within = \"10s\"";
    let one = Instance::start(&upstream, &database.url, lines).await;
    let two = Instance::start(&upstream, &database.url, lines).await;
    let begun = Instant::now();
    let (of_one, of_two) = tokio::join!(one.call_often(6), two.call_often(6));
    assert_eq!((of_one, of_two), (6, 6));
    // Twelve turns, 50 ms apart by the server's clock.
    assert!(begun.elapsed() >= Duration::from_millis(540));
    database.delete().await?;
    Ok(())
}

async fn slower() -> Outcome {
    let database = Database::create_on(servers::redis().await?).await?;
    let upstream = Upstream::start().await?;
    let slow = Instance::start(&upstream, &database.url, TWENTY).await;
    assert_eq!(slow.call_often(25).await, 20);
    // The next turn of that one is minutes away.
    let lines = "rate.count = 1000\nrate.redis.answer_within = \"10s\"";
    let fast = Instance::start(&upstream, &database.url, lines).await;
    assert_eq!(fast.call_often(10).await, 10);
    database.delete().await?;
    Ok(())
}

async fn forgotten() -> Outcome {
    let database = Database::create_on(servers::redis().await?).await?;
    let upstream = Upstream::start().await?;
    let one = Instance::start(&upstream, &database.url, TWENTY).await;
    for _ in 0..5 {
        assert_eq!(one.call_often(2).await, 2);
        database.command(&["SCRIPT", "FLUSH"]).await?;
    }
    assert_eq!(one.call_often(20).await, 10);
    assert_eq!(one.metrics.sum(RATE_ALONE, &[]), 0.0);
    database.delete().await?;
    Ok(())
}

async fn expires() -> Outcome {
    let database = Database::create_on(servers::redis().await?).await?;
    let upstream = Upstream::start().await?;
    let lines = "rate.count = 10\nrate.redis.answer_within = \"10s\"";
    let one = Instance::start(&upstream, &database.url, lines).await;
    one.call().await?;
    let begun = Instant::now();
    loop {
        let keys = database
            .command(&["EXISTS", "interline:rate:stock"])
            .await?;
        if keys == redis::Value::Int(0) {
            database.delete().await?;
            return Ok(());
        }
        assert!(begun.elapsed() < LIMIT, "the key stays");
        sleep(Duration::from_millis(20)).await;
    }
}

async fn dead() -> Outcome {
    let server = ServerFixture::redis().start().await?;
    let upstream = Upstream::start().await?;
    let lines = "rate.count = 10\nrate.per = \"1h\"\nrate.redis.answer_within = \"10s\"";
    let open = Instance::start(&upstream, server.url(), lines).await;
    let closed = format!("{lines}\nrate.redis.on_failure = \"closed\"");
    let closed = Instance::start(&upstream, server.url(), &closed).await;
    assert_eq!(
        (open.call_often(2).await, closed.call_often(2).await),
        (2, 2)
    );

    server.kill().await?;
    // Alone it has the whole rate and no more.
    assert_eq!(open.call_often(30).await, 10);
    assert_eq!(open.metrics.sum(RATE_ALONE, &[]), 10.0);
    for _ in 0..5 {
        let error = closed.call().await.unwrap_err();
        assert_eq!(error.kind(), CallErrorKind::RateLimited);
        let text = error.to_string();
        assert!(text.contains("the shared rate is not known"), "{text}");
        assert_eq!(error.retry_after(), None);
    }
    assert_eq!(upstream.count(), 14);

    server.restart().await?;
    let begun = Instant::now();
    while closed.call().await.is_err() {
        assert!(begun.elapsed() < LIMIT, "it is not found again");
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

async fn frozen() -> Outcome {
    let server = ServerFixture::redis().start().await?;
    let upstream = Upstream::start().await?;
    let lines = "rate.count = 100000\nrate.redis.answer_within = \"50ms\"";
    let one = Instance::start(&upstream, server.url(), lines).await;
    let alone = || one.metrics.sum(RATE_ALONE, &[]);
    let begun = Instant::now();
    loop {
        let before = alone();
        one.call().await?;
        if alone() == before {
            break;
        }
        assert!(
            begun.elapsed() < LIMIT,
            "it does not get to know the server"
        );
    }
    let before = alone();
    server.pause().await?;
    // Each asks, and none waits for longer than it is told to: all together well before the limit.
    for _ in 0..5 {
        one.call().await?;
    }
    assert_eq!(alone() - before, 5.0);
    server.resume().await?;
    Ok(())
}

/// When the next call would start if every turn was used, from now; nothing where there is no such time.
async fn ahead(database: &Database) -> Result<Duration, Box<dyn std::error::Error + Send + Sync>> {
    let due = database.command(&["GET", "interline:rate:stock"]).await?;
    let due: Option<u64> = redis::from_redis_value(due)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    Ok(Duration::from_micros(due.unwrap_or_default()).saturating_sub(now))
}

async fn given_up() -> Outcome {
    let database = Database::create_on(servers::redis().await?).await?;
    let upstream = Upstream::start().await?;
    let lines = "rate.count = 1\nrate.per = \"5s\"\nrate.wait = \"1h\"\ntimeout = \"1h\"\n\
                 rate.redis.answer_within = \"10s\"";
    let one = Instance::start(&upstream, &database.url, lines).await;
    one.call().await?;
    // Twenty wait for the turns of the next 100 s, and give up.
    let mut waiting = JoinSet::new();
    for _ in 0..20 {
        let stock = one.stock.clone();
        waiting.spawn(async move { stock.get("/items").receive_bytes().await });
    }
    let begun = Instant::now();
    while ahead(&database).await? < Duration::from_secs(80) {
        assert!(begun.elapsed() < LIMIT, "nobody waits");
        sleep(Duration::from_millis(20)).await;
    }
    waiting.shutdown().await;
    while ahead(&database).await? > Duration::from_secs(5) {
        assert!(begun.elapsed() < LIMIT, "they keep their turns");
        sleep(Duration::from_millis(20)).await;
    }
    let begun = Instant::now();
    one.call().await?;
    assert!(begun.elapsed() < Duration::from_secs(6), "{begun:?}");
    assert_eq!(one.metrics.sum(RATE_ALONE, &[]), 0.0);
    database.delete().await?;
    Ok(())
}

async fn late() -> Outcome {
    let server = ServerFixture::redis().start().await?;
    let upstream = Upstream::start().await?;
    let lines = "rate.count = 6\nrate.per = \"1h\"\nrate.redis.answer_within = \"10s\"\n\
                 rate.redis.on_failure = \"closed\"";
    let one = Instance::start(&upstream, server.url(), lines).await;
    one.call().await?;
    server.pause().await?;
    let mut calls = JoinSet::new();
    for _ in 0..5 {
        let options = CallOptions::new().timeout(Duration::from_millis(200));
        let stock = one.stock.with(options);
        calls.spawn(async move { stock.get("/items").receive_bytes().await });
    }
    for result in calls.join_all().await {
        let error = result.unwrap_err();
        assert_eq!(
            (error.attempts(), error.is_sent()),
            (0, Sent::No),
            "{error}"
        );
    }
    // The server has their questions still to answer, and gives each of them a turn.
    server.resume().await?;
    let begun = Instant::now();
    let mut made = 0;
    while made < 5 {
        assert!(begun.elapsed() < LIMIT, "{made} of 5 came back");
        made += one.call_often(1).await;
    }
    assert_eq!((one.call_often(3).await, upstream.count()), (0, 6));
    Ok(())
}

async fn hedges() -> Outcome {
    let database = Database::create_on(servers::redis().await?).await?;
    let upstream = Upstream::start_slow(Duration::from_millis(100)).await?;
    let lines = format!("{TWENTY}\nhedge.after = \"1ms\"\nhedge.share = 1.0");
    let one = Instance::start(&upstream, &database.url, &lines).await;
    let two = Instance::start(&upstream, &database.url, &lines).await;
    let (of_one, of_two) = tokio::join!(one.call_often(25), two.call_often(25));
    assert!(of_one + of_two < 20, "{of_one} and {of_two}");
    assert_eq!(upstream.count(), 20);
    let sent = |one: &Instance| one.metrics.sum(HEDGES, &[]);
    let second = sent(&one) + sent(&two);
    assert_eq!(second, (20 - of_one - of_two) as f64);
    // That there was no turn for a second one is no refused call.
    let refused = |one: &Instance| one.metrics.sum(RATE_LIMITED, &[]);
    let calls = (50 - of_one - of_two) as f64;
    assert_eq!(refused(&one) + refused(&two), calls);
    database.delete().await?;
    Ok(())
}
