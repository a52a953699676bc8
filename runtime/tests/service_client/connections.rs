//! How old connections become.

use std::collections::BTreeMap;
use std::time::Duration;

use interline::Running;
use tokio::time::Instant;

use crate::server::{Reply, Seen, Server, Way};
use crate::shop::{ITEM, Shop, ShopClient, item, till};

const AGE: Duration = Duration::from_millis(400);
const LIMIT: Duration = Duration::from_secs(30);

async fn aging(server: &Server, lines: &str) -> (Running, ShopClient) {
    let running = till(&[server.url()], lines).await;
    let shop = running.client().expect("a configured service");
    (running, shop)
}

/// Calls without a pause until there were so many connections.
async fn call_until(shop: &ShopClient, server: &Server, connections: usize) {
    let begun = Instant::now();
    while server.connections() < connections {
        assert!(begun.elapsed() < LIMIT, "{}", server.connections());
        assert_eq!(shop.item("7").await.expect("no call is cut"), item());
    }
}

/// The longest time between two requests on one connection.
fn oldest(server: &Server) -> Duration {
    let mut times: BTreeMap<usize, (Instant, Instant)> = BTreeMap::new();
    for seen in server.seen() {
        let (_, last) = times.entry(seen.connection).or_insert((seen.at, seen.at));
        *last = seen.at;
    }
    let ages = times.into_values().map(|(first, last)| last - first);
    ages.max().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_become_no_older_than_they_may() {
    for (way, protocol) in [(Way::Http1, "http1"), (Way::Http2, "http2")] {
        let server = Server::start_with(|_| Reply::json(ITEM), way).await;
        let lines = format!("connection_age_max = \"400ms\"\nprotocol = \"{protocol}\"");
        let (_running, shop) = aging(&server, &lines).await;
        call_until(&shop, &server, 5).await;
        // A busy machine is late now and then.
        let oldest = oldest(&server);
        assert!(oldest < 4 * AGE, "{protocol}: {oldest:?}");
        assert!(oldest > AGE / 2, "{protocol}: {oldest:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_takes_longer_comes_whole() {
    for (way, protocol) in [(Way::Http1, "http1"), (Way::Http2, "http2")] {
        let wait = Duration::from_millis(100);
        let pieces = [(wait, "0123456789"); 15];
        let long = move |seen: &Seen| match seen.target.ends_with("/long") {
            true => Reply::status(200).pieces(&pieces),
            false => Reply::json(ITEM),
        };
        let server = Server::start_with(long, way).await;
        let lines = format!("connection_age_max = \"200ms\"\nprotocol = \"{protocol}\"");
        let (running, shop) = aging(&server, &lines).await;
        let client = running.manager().http_client("shop").unwrap();
        let mut stream = client.get("/long").receive_stream().await.unwrap();
        let begun = server.connections();
        let reading = tokio::spawn(async move {
            let mut length = 0;
            while let Some(piece) = stream.next().await {
                length += piece.expect("the rest of the answer").len();
            }
            length
        });
        // Others were made while it came.
        let started = Instant::now();
        call_until(&shop, &server, begun + 3).await;
        let took = started.elapsed();
        assert!(!reading.is_finished(), "{protocol}: {took:?} is too long");
        assert_eq!(reading.await.unwrap(), 150, "{protocol}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_a_limit_stays() {
    let server = Server::start(|_| Reply::json(ITEM)).await;
    let (_running, shop) = aging(&server, "connection_age_max = \"0s\"").await;
    // With the time between for a connection to be free again: else another one is made.
    for _ in 0..80 {
        shop.item("7").await.unwrap();
        tokio::time::sleep(AGE / 20).await;
    }
    // Four times as old as it might become with a limit; a busy machine needs a second one.
    assert!(server.connections() <= 2, "{}", server.connections());
}
