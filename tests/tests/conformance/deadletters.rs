//! Dead letters: the original bytes with headers, listed, sent back once, removed.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::select;
use interline::HeaderValue;
use interline::message::Incoming;
use interline::message::headers::name;
use interline::messaging::{Settled, Subscription};

use tokio::time::{Instant, timeout};

use crate::world::{
    LIMIT, Outcome, Process, QUIET, Reader, World, cases, message, subscription, text,
};

cases![
    a_dead_letter_is_the_original_with_its_headers,
    a_redrive_that_is_cut_short_loses_nothing,
    dead_letters_are_purged_by_choice,
    dead_letters_are_sent_back_once,
    many_dead_letters_are_sent_back_once_each,
    nothing_is_kept_where_dead_letters_are_off,
    what_outlives_its_time_is_a_dead_letter,
];

/// Publishes, and gives up what comes.
async fn bury(process: &Process, reader: &mut Reader, bodies: &[&str]) -> Outcome {
    for body in bodies {
        process.publish(message("t", body)).await;
        let (incoming, settlement) = reader.next().await;
        let mut headers = incoming.headers.clone();
        headers.set(name::DLQ_REASON, "rejected");
        let settled = settlement.dead_letter(incoming, headers).await?;
        assert_eq!(settled, Settled::Yes);
    }
    Ok(())
}

fn bodies(letters: &[Incoming]) -> Vec<String> {
    letters.iter().map(text).collect()
}

async fn a_dead_letter_is_the_original_with_its_headers(world: Arc<World>) -> Outcome {
    let topic = match world.has_patterns() {
        true => "orders.{region}.placed",
        false => "orders.eu.placed",
    };
    let wanted = subscription(topic, "g");
    let process = world.process("1").await;
    let mut reader = process.read(&wanted).await;
    let body = Bytes::from((0..=255_u8).cycle().take(5_000).collect::<Vec<_>>());
    let mut outgoing = message("orders.eu.placed", "1");
    outgoing.body = body.clone();
    // Where a topic is a place of its own, it may not be there yet.
    outgoing.subscribers_optional = true;
    outgoing.key = Some("k".into());
    outgoing.headers.set(name::CONTENT_TYPE, "application/json");
    outgoing.headers.set("x-flag", true);
    outgoing.headers.set("x-count", 7_i64);
    process.publish(outgoing).await;
    let (incoming, settlement) = reader.next().await;
    let original = Arc::clone(&incoming);
    let mut headers = incoming.headers.clone();
    headers.set(name::DLQ_REASON, "decode");
    headers.set(name::DLQ_ATTEMPTS, 1_u32);
    settlement.dead_letter(incoming, headers.clone()).await?;

    let letters = process.dead(&wanted, 1).await;
    let letter = &letters[0];
    assert_eq!(letter.body, body);
    assert_eq!(&*letter.topic, "orders.eu.placed");
    assert_eq!((&letter.id, &letter.key), (&original.id, &original.key));
    for (name, value) in headers.iter() {
        assert_eq!(letter.headers.get(name), Some(value), "{name}");
    }
    assert_eq!(letter.headers.get("x-flag"), Some(&HeaderValue::Bool(true)));
    reader.expect_quiet().await;
    Ok(())
}

async fn dead_letters_are_sent_back_once(world: Arc<World>) -> Outcome {
    let wanted = subscription("t", "g");
    let process = world.process("1").await;
    let mut reader = process.read(&wanted).await;
    let mut other = process.read(&subscription("t", "other")).await;
    bury(&process, &mut reader, &["1", "2", "3"]).await?;
    assert_eq!(other.take_all(3).await, ["1", "2", "3"]);
    assert_eq!(bodies(&process.dead(&wanted, 3).await), ["1", "2", "3"]);

    let letters = process.dead_letters();
    let choose = |letter: &Incoming| {
        let mut headers = letter.headers.clone();
        headers.retain(|name, _| !name.starts_with(name::DLQ_PREFIX));
        (letter.body != "2").then_some(headers)
    };
    assert_eq!(letters.redrive(&wanted, 1, &choose).await?, 1);
    assert_eq!(bodies(&process.dead(&wanted, 2).await), ["2", "3"]);
    assert_eq!(letters.redrive(&wanted, 10, &choose).await?, 1);
    assert_eq!(letters.redrive(&wanted, 10, &choose).await?, 0);
    for body in ["1", "3"] {
        let (again, settlement) = reader.next().await;
        assert_eq!(text(&again), body);
        assert_eq!(again.id.as_str(), format!("t/{body}"));
        assert!(!again.headers.contains(name::DLQ_REASON));
        settlement.done().await?;
    }
    reader.expect_quiet().await;
    other.expect_quiet().await;
    assert_eq!(bodies(&process.dead(&wanted, 1).await), ["2"]);
    Ok(())
}

/// More than are on their way at once.
async fn many_dead_letters_are_sent_back_once_each(world: Arc<World>) -> Outcome {
    let wanted = subscription("t", "g");
    let process = world.process("1").await;
    let mut reader = process.read(&wanted).await;
    let all: Vec<String> = (0..150).map(|number| number.to_string()).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    bury(&process, &mut reader, &all).await?;
    process.dead(&wanted, all.len()).await;

    let letters = process.dead_letters();
    let is_last = |letter: &Incoming| letter.body == "149";
    let choose = |letter: &Incoming| (!is_last(letter)).then(|| letter.headers.clone());
    assert_eq!(letters.redrive(&wanted, 140, &choose).await?, 140);
    assert_eq!(letters.redrive(&wanted, 1_000, &choose).await?, 9);
    let mut came: Vec<usize> = Vec::new();
    for body in reader.take_all(149).await {
        came.push(body.parse()?);
    }
    // A quorum queue that was looked at gives back more than 32 in any order.
    came.sort_unstable();
    assert!(came.into_iter().eq(0..149));
    reader.expect_quiet().await;
    assert_eq!(bodies(&process.dead(&wanted, 1).await), ["149"]);
    assert_eq!(letters.purge(&wanted, 1_000, &is_last).await?, 1);
    Ok(())
}

async fn a_redrive_that_is_cut_short_loses_nothing(world: Arc<World>) -> Outcome {
    let wanted = subscription("t", "g");
    let process = world.process("1").await;
    let mut reader = process.read(&wanted).await;
    let all = ["1", "2", "3", "4", "5"];
    bury(&process, &mut reader, &all).await?;
    process.dead(&wanted, all.len()).await;
    let third = tokio::sync::Notify::new();
    let seen = AtomicUsize::new(0);
    let choose = |letter: &Incoming| {
        if seen.fetch_add(1, Ordering::Relaxed) == 2 {
            third.notify_one();
        }
        Some(letter.headers.clone())
    };
    {
        let redrive = process.dead_letters().redrive(&wanted, all.len(), &choose);
        select(redrive, pin!(third.notified())).await;
    }
    // A process that dies between the copy and the removal leaves both.
    process.close().await;
    let process = world.process("2").await;
    let mut reader = process.read(&wanted).await;
    let begun = Instant::now();
    let mut came = BTreeSet::new();
    while came.len() < all.len() {
        assert!(begun.elapsed() < LIMIT, "only {came:?} came");
        let again = |letter: &Incoming| Some(letter.headers.clone());
        process
            .dead_letters()
            .redrive(&wanted, all.len(), &again)
            .await?;
        while let Ok(Some(delivery)) = timeout(QUIET, reader.deliveries.recv()).await {
            came.insert(text(&delivery.incoming));
            delivery.settlement.done().await?;
        }
    }
    assert!(process.dead(&wanted, 0).await.is_empty());
    assert!(came.iter().map(String::as_str).eq(all));
    Ok(())
}

async fn dead_letters_are_purged_by_choice(world: Arc<World>) -> Outcome {
    let wanted = subscription("t", "g");
    let process = world.process("1").await;
    let mut reader = process.read(&wanted).await;
    bury(&process, &mut reader, &["1", "2", "3", "4"]).await?;
    process.dead(&wanted, 4).await;
    let letters = process.dead_letters();
    assert_eq!(letters.purge(&wanted, 10, &|_| false).await?, 0);
    let odd = |letter: &Incoming| matches!(&letter.body[..], b"1" | b"3");
    assert_eq!(letters.purge(&wanted, 10, &odd).await?, 2);
    assert_eq!(letters.purge(&wanted, 1, &|_| true).await?, 1);
    assert_eq!(bodies(&process.dead(&wanted, 1).await), ["4"]);
    reader.expect_quiet().await;
    Ok(())
}

async fn nothing_is_kept_where_dead_letters_are_off(world: Arc<World>) -> Outcome {
    let mut wanted: Subscription = subscription("t", "g");
    wanted.dead_letter = false;
    let process = world.process("1").await;
    let mut reader = process.read(&wanted).await;
    process.publish(message("t", "1")).await;
    let (incoming, settlement) = reader.next().await;
    let headers = incoming.headers.clone();
    assert_eq!(
        settlement.dead_letter(incoming, headers).await?,
        Settled::Yes
    );
    process.close().await;
    let process = world.process("2").await;
    let mut reader = process.read(&wanted).await;
    reader.expect_quiet().await;
    Ok(())
}

async fn what_outlives_its_time_is_a_dead_letter(world: Arc<World>) -> Outcome {
    let wanted = subscription("t", "g");
    let process = world.process("1").await;
    if !process.broker.capabilities().message_ttl {
        return Ok(());
    }
    process.apply(&wanted).await;
    let mut outgoing = message("t", "late");
    outgoing.ttl = Some(Duration::from_millis(300));
    process.publish(outgoing).await;
    process.publish(message("t", "in-time")).await;
    let mut reader = None;
    if world.expires_when_read() {
        tokio::time::sleep(Duration::from_millis(400)).await;
        reader = Some(process.read(&wanted).await);
    }
    let letters = process.dead(&wanted, 1).await;
    assert_eq!(bodies(&letters), ["late"]);
    assert_eq!(
        (letters[0].id.as_str(), &*letters[0].topic),
        ("t/late", "t")
    );
    let reason = letters[0].headers.text(name::DLQ_REASON);
    assert_eq!(reason.as_deref(), Some("expired"));
    let mut reader = match reader {
        Some(reader) => reader,
        None => process.read(&wanted).await,
    };
    assert_eq!(reader.take().await, "in-time");
    reader.expect_quiet().await;
    Ok(())
}
