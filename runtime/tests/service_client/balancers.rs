//! The choice among endpoints, and those that are left alone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use interline::CallOptions;
use interline::http::CallErrorKind;
use interline::observability::metrics::{EJECTED, EJECTIONS};
use interline::prelude::*;
use tokio::task::JoinSet;

use crate::server::{Reply, Server};
use crate::shop::{ITEM, Shop, ShopClient, client, item, measured};

async fn servers(count: usize, reply: impl Fn(usize) -> Reply) -> (Vec<Server>, Vec<String>) {
    let mut servers = Vec::new();
    for number in 0..count {
        let reply = reply(number);
        servers.push(Server::start(move |_| reply.clone()).await);
    }
    let urls = servers.iter().map(Server::url).collect();
    (servers, urls)
}

fn counts(servers: &[Server]) -> Vec<usize> {
    servers.iter().map(Server::count).collect()
}

fn fine(_: usize) -> Reply {
    Reply::json(ITEM)
}

/// Calls from `tasks` tasks until `until`.
async fn call_until(shop: &Arc<ShopClient>, tasks: usize, until: Instant) {
    let mut calls = JoinSet::new();
    for _ in 0..tasks {
        let shop = Arc::clone(shop);
        calls.spawn(async move {
            while Instant::now() < until {
                let found = shop.item("7").await.expect("one of them answers");
                assert_eq!(found, item());
            }
        });
    }
    calls.join_all().await;
}

#[tokio::test]
async fn weights_are_kept() {
    let (servers, urls) = servers(3, fine).await;
    let lines = format!(
        "balance = \"weighted\"\nweights.\"{}\" = 3\nweights.\"{}\" = 6",
        urls[1], urls[2]
    );
    let shop = client(&urls, &lines).await;
    for _ in 0..100 {
        shop.item("7").await.unwrap();
    }
    assert_eq!(counts(&servers), [10, 30, 60]);
}

#[tokio::test]
async fn every_balancer_passes_over_an_endpoint_that_fails() {
    for balance in [
        "p2c_ewma",
        "round_robin",
        "weighted",
        "random",
        "least_request",
        "ring_hash",
        "zone_aware",
    ] {
        let reply = |number| match number {
            1 => Reply::status(503),
            _ => Reply::json(ITEM),
        };
        let (servers, urls) = servers(3, reply).await;
        let shop = client(&urls, &format!("balance = \"{balance}\"")).await;
        for call in 0..200 {
            let options = CallOptions::new().hash_key(format!("customer-{call}"));
            assert_eq!(shop.with(options).item("7").await.unwrap(), item());
        }
        let counts = counts(&servers);
        // Five failures in a row, and nothing for the next seconds.
        assert!(counts[1] <= 5, "{balance}: {counts:?}");
        assert!(counts[0] > 40 && counts[2] > 40, "{balance}: {counts:?}");
    }
}

#[tokio::test]
async fn a_key_goes_to_one_endpoint_also_from_another_process() {
    let (servers, urls) = servers(4, fine).await;
    let reversed: Vec<_> = urls.iter().rev().cloned().collect();
    let lines = "balance = \"ring_hash\"";
    let clients = [client(&urls, lines).await, client(&reversed, lines).await];
    for key in 0..20 {
        let before = counts(&servers);
        for shop in &clients {
            let shop = shop.with(CallOptions::new().hash_key(format!("customer-{key}")));
            for _ in 0..3 {
                shop.item("7").await.unwrap();
            }
        }
        let after = counts(&servers);
        let grown: Vec<_> = before
            .iter()
            .zip(after)
            .map(|(before, after)| after - before)
            .collect();
        assert_eq!(grown.iter().max(), Some(&6), "{grown:?}");
    }
    assert!(counts(&servers).iter().filter(|count| **count > 0).count() > 1);
}

#[tokio::test]
async fn a_zone_serves_its_own_until_it_fails() {
    let (servers, urls) = servers(4, fine).await;
    let lines = format!(
        "balance = \"zone_aware\"\nbreaker.consecutive = 1\n\
         zones.a = [\"{}\", \"{}\"]\nzones.b = [\"{}\", \"{}\"]",
        urls[0], urls[1], urls[2], urls[3]
    );
    let toml = format!(
        "service.name = \"till\"\nservice.zone = \"b\"\n[services.shop]\nurls = {urls:?}\n{lines}"
    );
    let config = Config::from_toml("interline.toml", &toml).unwrap();
    let app = App::new(config).named_only().publish_only();
    let running = app.launch().await.unwrap();
    let shop: ShopClient = running.client().unwrap();
    let of = |zone| shop.with(CallOptions::new().zone(zone));
    for _ in 0..50 {
        of("a").item("7").await.unwrap();
    }
    let before = counts(&servers);
    assert_eq!(before[0] + before[1], 50, "{before:?}");
    for _ in 0..50 {
        // Where the program itself runs.
        shop.item("7").await.unwrap();
    }
    let before = counts(&servers);
    assert_eq!(before[2] + before[3], 50, "{before:?}");
    servers[0].change(|_| Reply::status(503));
    servers[1].change(|_| Reply::status(503));
    for _ in 0..50 {
        assert_eq!(of("a").item("7").await.unwrap(), item());
    }
    let after = counts(&servers);
    assert_eq!(after[0] + after[1], 52, "one failure each: {after:?}");
    assert_eq!(after[2] + after[3], 100);
}

#[tokio::test]
async fn one_that_fails_in_no_time_gets_next_to_nothing_after_a_second() {
    let reply = |number| match number {
        2 => Reply::status(503),
        _ => Reply::json(ITEM).after(Duration::from_millis(2)),
    };
    let (servers, urls) = servers(4, reply).await;
    let shop = Arc::new(client(&urls, "breaker.enabled = false").await);
    let begun = Instant::now();
    call_until(&shop, 8, begun + Duration::from_secs(1)).await;
    let before = counts(&servers);
    call_until(&shop, 8, begun + Duration::from_secs(3)).await;
    let after = counts(&servers);
    let grown: Vec<_> = before
        .iter()
        .zip(after)
        .map(|(before, after)| after - before)
        .collect();
    let total: usize = grown.iter().sum();
    // With nothing but the balancer; the circuit of the endpoint is off.
    assert!(grown[2] * 50 < total, "{grown:?}");
    assert!(
        [0, 1, 3].iter().all(|at| grown[*at] * 5 > total),
        "{grown:?}"
    );
}

#[tokio::test]
async fn a_slow_one_gets_its_small_share() {
    let reply = |number| match number {
        1 => Reply::json(ITEM).after(Duration::from_millis(52)),
        _ => Reply::json(ITEM).after(Duration::from_millis(2)),
    };
    let (servers, urls) = servers(4, reply).await;
    let shop = Arc::new(client(&urls, "").await);
    call_until(&shop, 16, Instant::now() + Duration::from_secs(3)).await;
    let counts = counts(&servers);
    let total: usize = counts.iter().sum();
    assert!(counts[1] > 0 && counts[1] * 10 < total, "{counts:?}");
}

#[tokio::test]
async fn a_service_that_fails_altogether_sees_at_most_a_fifth_more_calls() {
    let (servers, urls) = servers(4, |_| Reply::status(503)).await;
    let lines =
        "retry.floor = 0\nretry.first = \"1ms\"\nretry.attempts = 5\nbreaker.enabled = false";
    let shop = Arc::new(client(&urls, lines).await);
    let mut calls = JoinSet::new();
    for _ in 0..20 {
        let shop = Arc::clone(&shop);
        calls.spawn(async move {
            for _ in 0..50 {
                shop.item("7").await.unwrap_err();
            }
        });
    }
    calls.join_all().await;
    let attempts: usize = counts(&servers).iter().sum();
    assert!((1_100..=1_200).contains(&attempts), "{attempts}");
}

#[tokio::test]
async fn ejections_are_counted_and_end() {
    let reply = |number| match number {
        0 => Reply::status(503),
        _ => Reply::json(ITEM),
    };
    let (servers, urls) = servers(3, reply).await;
    let lines = "balance = \"round_robin\"\nbreaker.consecutive = 2\nbreaker.open = \"100ms\"\n\
                 slow_start = \"100ms\"";
    let (running, metrics) = measured(&urls, lines).await;
    let shop: ShopClient = running.client().unwrap();
    while metrics.sum(EJECTED, &[("service", "shop")]) < 1.0 {
        assert_eq!(shop.item("7").await.unwrap(), item());
    }
    assert_eq!(servers[0].count(), 2);
    assert_eq!(metrics.sum(EJECTIONS, &[("endpoint", &urls[0])]), 1.0);
    servers[0].change(|_| Reply::json(ITEM));
    while metrics.sum(EJECTED, &[("service", "shop")]) > 0.0 {
        assert_eq!(shop.item("7").await.unwrap(), item());
    }
    let before = servers[0].count();
    while servers[0].count() < before + 10 {
        assert_eq!(shop.item("7").await.unwrap(), item());
    }
    assert_eq!(metrics.sum(EJECTIONS, &[]), 1.0);
}

#[tokio::test]
async fn behind_a_mesh_nothing_is_repeated_and_nobody_left_alone() {
    let server = Server::start(|seen| match seen.number % 10 {
        9 => Reply::json(ITEM),
        _ => Reply::status(503),
    })
    .await;
    let shop = client(&[server.url()], "mode = \"mesh\"\nbreaker.enabled = false").await;
    for number in 0..100 {
        match shop.item("7").await {
            Ok(found) => assert_eq!((found, number % 10), (item(), 9)),
            Err(error) => {
                let seen = (error.kind(), error.attempts());
                assert_eq!(seen, (CallErrorKind::Status, 1));
            }
        }
    }
    assert_eq!(server.count(), 100);
}

#[tokio::test]
async fn settings_without_effect_are_mistakes() {
    let toml = "service.name = \"till\"\n[services.shop]\nurls = [\"http://a\", \"http://b\"]\n\
                mode = \"mesh\"\nweights.\"http://a\" = 2\nzones.x = [\"http://b\"]\n\
                ejection.max_share = 0.1\nslow_start = \"1s\"\nretry.attempts = 2\n";
    let config = Config::from_toml("interline.toml", toml).unwrap();
    let app = App::new(config).named_only().publish_only();
    let report = format!("{:?}", app.launch().await.unwrap_err());
    let words: Vec<_> = report.split_whitespace().collect();
    let report = words.join(" ");
    for mistake in [
        "services.shop.urls names several addresses, and a mesh has one",
        "services.shop.weights has no effect with this `balance`",
        "services.shop.zones has no effect with this `balance`",
        "services.shop.ejection has no effect with `mode = \"mesh\"`",
        "services.shop.slow_start has no effect with `mode = \"mesh\"`",
        "services.shop.retry has no effect with `mode = \"mesh\"`",
    ] {
        assert!(report.contains(mistake), "{mistake} in {report}");
    }
}

#[tokio::test]
async fn a_ring_does_not_take_a_slow_start_for_granted() {
    let toml = "service.name = \"till\"\n[services.shop]\nurls = [\"http://a\", \"http://b\"]\n\
                balance = \"ring_hash\"\nslow_start = \"1s\"\n";
    let config = Config::from_toml("interline.toml", toml).unwrap();
    let app = App::new(config).named_only().publish_only();
    let report = format!("{:?}", app.launch().await.unwrap_err());
    let report = report.split_whitespace().collect::<Vec<_>>().join(" ");
    let mistake = "services.shop.slow_start has no effect with `balance = \"ring_hash\"`";
    assert!(report.contains(mistake), "{report}");
}
