//! What calls do about instances that fail, beside others that do not.

use std::time::{Duration, Instant};

use interline::prelude::*;

use crate::server::{Reply, Server};
use crate::shop::{HedgingShop, ITEM, Shop, ShopClient, ShopWithHedges, item, till};

/// So long that who waits for it fails the test by its time limit.
const NEVER: Duration = Duration::from_secs(60);

/// Two instances, of which one answers nothing any more and is left alone for it.
struct OneHangs {
    fine: Server,
    hanging: Server,
    running: interline::Running,
}

impl OneHangs {
    async fn start() -> Self {
        let fine = Server::start(|_| Reply::json(ITEM)).await;
        let hanging = Server::start(|_| Reply::json(ITEM).after(NEVER)).await;
        let lines = "balance = \"round_robin\"\nbreaker.open = \"60s\"\n\
                     breaker.minimum_calls = 1000";
        let running = till(&[fine.url(), hanging.url()], lines).await;
        let shop: ShopClient = running.client().expect("a configured service");
        let hurried = shop.with(CallOptions::new().timeout(Duration::from_millis(50)));
        let mut lost = 0;
        while lost < 5 {
            lost += usize::from(hurried.item("7").await.is_err());
        }
        assert_eq!(hanging.count(), 5);
        Self {
            fine,
            hanging,
            running,
        }
    }
}

#[tokio::test]
async fn a_repeat_does_not_go_to_an_instance_that_is_known_to_hang() {
    let two = OneHangs::start().await;
    let shop: ShopClient = two.running.client().unwrap();
    // Each call needs a second attempt.
    two.fine.change(|seen| match seen.header("x-attempt") {
        "1" => Reply::status(503),
        _ => Reply::json(ITEM),
    });
    let begun = Instant::now();
    for _ in 0..20 {
        assert_eq!(shop.item("7").await.unwrap(), item());
    }
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    assert_eq!(two.hanging.count(), 5);
}

#[tokio::test]
async fn a_second_request_does_not_go_to_an_instance_that_is_known_to_hang() {
    let two = OneHangs::start().await;
    let shop: HedgingShop = two.running.client().unwrap();
    two.fine.change(|seen| match seen.header("x-attempt") {
        "1" => Reply::json(ITEM).after(NEVER),
        _ => Reply::json(ITEM),
    });
    let begun = Instant::now();
    for _ in 0..5 {
        assert_eq!(shop.item(7).await.unwrap(), item());
    }
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    assert_eq!(two.hanging.count(), 5);
}
