//! How many at once, in which order, how fast, and when not at all.

use super::*;

#[tokio::test(start_paused = true)]
async fn messages_of_one_key_stay_in_order_while_one_of_them_fails() {
    let world = World::new().await;
    let seen = Seen::default();
    let failing = handler(&seen, |incoming, _| async move {
        let fails = &incoming.body[..] == b"a2" && incoming.attempt < 4;
        if fails {
            Outcome::retry("not yet")
        } else {
            Outcome::done()
        }
    });
    let planned = planned_with("orders", failing, |planned| {
        planned.ordered_by = Some(OrderedBy::Key);
        planned.concurrency = 8;
        Arc::make_mut(&mut planned.subscription).ordered_by = Some(OrderedBy::Key);
    });
    let _runner = world.run(planned).await;
    assert_ne!(
        dispatcher::lane_of(Some("a"), 8),
        dispatcher::lane_of(Some("c"), 8)
    );
    for number in 1..=4 {
        world
            .publish("orders", &format!("a{number}"), &[(name::MESSAGE_KEY, "a")])
            .await;
        world
            .publish("orders", &format!("b{number}"), &[(name::MESSAGE_KEY, "c")])
            .await;
    }
    world.settled().await;
    let seen = seen.take();
    let of = |key: char| {
        seen.iter()
            .filter(|one| one.starts_with(key))
            .cloned()
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(of('a'), "a1#1 a2#1 a2#2 a2#3 a2#4 a3#1 a4#1");
    assert_eq!(of('b'), "b1#1 b2#1 b3#1 b4#1");
    let last_b = seen.iter().position(|one| one == "b4#1");
    assert!(
        last_b < seen.iter().position(|one| one == "a2#2"),
        "lane b waited: {seen:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn concurrency_is_bounded_and_a_waiting_retry_leaves_its_place() {
    let world = World::new().await;
    let running: Arc<AtomicUsize> = Arc::default();
    let most: Arc<AtomicUsize> = Arc::default();
    let (now, peak) = (Arc::clone(&running), Arc::clone(&most));
    let handler = Handler::one(move |incoming, _| {
        let (now, peak) = (Arc::clone(&now), Arc::clone(&peak));
        async move {
            peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(10)).await;
            now.fetch_sub(1, Ordering::SeqCst);
            if incoming.attempt == 1 {
                Outcome::retry("once")
            } else {
                Outcome::done()
            }
        }
    });
    let planned = planned_with("orders", handler, |planned| planned.concurrency = 3);
    let _runner = world.run(planned).await;
    for _ in 0..20 {
        world.publish("orders", "x", &[]).await;
    }
    world.settled().await;
    assert_eq!(most.load(Ordering::SeqCst), 3);
    assert_eq!(world.metrics.sum(metrics::CONSUMED, &[]), 40.0);
    assert_eq!(world.metrics.sum(metrics::IN_FLIGHT, &[]), 0.0);
}

fn batch_handler(sizes: &Arc<Mutex<Vec<String>>>) -> Handler {
    let sizes = Arc::clone(sizes);
    Handler::batch(move |messages, scope| {
        let sizes = Arc::clone(&sizes);
        async move {
            let bodies: Vec<_> = messages
                .iter()
                .map(|one| String::from_utf8_lossy(&one.body).into_owned())
                .collect();
            sizes
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(bodies.join(","));
            let read = |one: &Arc<Incoming>| Ok((one.body.clone(), one.attempt));
            run_batch(messages.clone(), &scope, read, |batch| async move {
                let bad: Vec<_> = batch
                    .payloads()
                    .enumerate()
                    .filter(|(_, (body, attempt))| body.starts_with(b"bad") && *attempt == 1)
                    .map(|(at, _)| at)
                    .collect();
                batch.all_done_except(bad, &Outcome::retry("bad"))
            })
            .await
        }
    })
}

#[tokio::test(start_paused = true)]
async fn batches_form_by_size_or_time_and_only_the_failed_are_repeated() {
    let world = World::new().await;
    let sizes = Arc::default();
    let planned = planned_with("orders", batch_handler(&sizes), |planned| {
        planned.batch = Some(BatchOptions::new(3, Duration::from_secs(1)));
        planned.concurrency = 1;
    });
    let _runner = world.run(planned.clone()).await;
    for body in ["1", "bad2", "3", "4"] {
        world.publish("orders", body, &[]).await;
    }
    world.settled().await;
    let mut sizes = sizes.lock().unwrap_or_else(PoisonError::into_inner).clone();
    sizes.sort();
    assert_eq!(sizes, ["1,bad2,3", "4", "bad2"]);
    assert!(world.dead_letters(&planned).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn pausing_by_hand_and_by_fate_stops_the_start_of_messages() {
    let world = World::new().await;
    let seen = Seen::default();
    let tries: Arc<AtomicUsize> = Arc::default();
    let counted = Arc::clone(&tries);
    let pausing = handler(&seen, move |incoming, _| {
        let first = counted.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            let pauses = first && &incoming.body[..] == b"down";
            if pauses {
                Outcome::pause(Duration::from_secs(30), "bank down")
            } else {
                Outcome::done()
            }
        }
    });
    let runner = world.run(planned("orders", pausing)).await;
    world.publish("orders", "down", &[]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.publish("orders", "later", &[]).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(seen.take(), ["down#1"]);
    world.settled().await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    world.settled().await;
    let mut after = seen.take();
    after.sort();
    // The pause is no attempt: the message comes again as the first one.
    assert_eq!(after, ["down#1", "later#1"]);

    runner.pause().await;
    world.publish("orders", "held", &[]).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(seen.take().is_empty());
    runner.resume().await;
    world.settled().await;
    assert_eq!(seen.take(), ["held#1"]);
}

#[tokio::test(start_paused = true)]
async fn a_rate_spaces_the_starts() {
    let world = World::new().await;
    let seen = Seen::default();
    let planned = planned_with("orders", answering(&seen, Outcome::done), |planned| {
        planned.rate = Some(Rate::new(1, Duration::from_secs(1)));
    });
    let _runner = world.run(planned).await;
    let start = Instant::now();
    for _ in 0..5 {
        world.publish("orders", "x", &[]).await;
    }
    world.settled().await;
    assert_eq!(seen.take().len(), 5);
    assert!(
        start.elapsed() >= Duration::from_secs(4),
        "{:?}",
        start.elapsed()
    );
}
