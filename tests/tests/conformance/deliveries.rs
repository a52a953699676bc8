//! Deliveries and their settlements: acknowledgement, redelivery, prefetch, pausing, stopping.

use std::sync::Arc;

use interline::messaging::{ConsumerState, OrderedBy, Settled};

use crate::world::{LIMIT, Outcome, World, cases, message, subscription, text, until};

cases![
    a_lost_connection_hands_out_again_what_was_not_settled,
    a_paused_consumer_fetches_nothing_until_it_resumes,
    a_paused_reader_of_what_is_ordered_is_not_passed,
    a_stopped_consumer_leaves_the_rest_to_others,
    a_trickle_has_so_many_out_and_no_more,
    no_more_than_the_prefetch_is_out,
    one_instance_at_a_time_reads_what_is_ordered_by_key,
    what_is_done_does_not_come_again,
    what_is_ordered_goes_to_the_next_reader_in_its_order,
    what_is_out_when_a_process_ends_goes_to_the_next,
    what_is_released_comes_again_untouched,
];

async fn what_is_done_does_not_come_again(world: Arc<World>) -> Outcome {
    let wanted = subscription("t", "g");
    let process = world.process("1").await;
    let mut reader = process.read(&wanted).await;
    for body in ["1", "2", "3"] {
        process.publish(message("t", body)).await;
    }
    assert_eq!(reader.take_all(3).await, ["1", "2", "3"]);
    process.close().await;
    let process = world.process("2").await;
    let mut reader = process.read(&wanted).await;
    reader.expect_quiet().await;
    Ok(())
}

async fn what_is_released_comes_again_untouched(world: Arc<World>) -> Outcome {
    let process = world.process("1").await;
    let mut reader = process.read(&subscription("t", "g")).await;
    process.publish(message("t", "1")).await;
    let (first, settlement) = reader.next().await;
    assert!(!first.redelivered);
    assert_eq!(settlement.release().await?, Settled::Yes);
    let (again, settlement) = reader.next().await;
    assert_eq!((text(&again).as_str(), again.redelivered), ("1", true));
    assert_eq!((again.id.as_str(), again.attempt), ("t/1", 1));
    settlement.done().await?;
    reader.expect_quiet().await;
    Ok(())
}

async fn no_more_than_the_prefetch_is_out(world: Arc<World>) -> Outcome {
    let process = world.process("1").await;
    let mut wanted = subscription("t", "g");
    wanted.prefetch = 3;
    process.apply(&wanted).await;
    for body in 0..6 {
        process.publish(message("t", &body.to_string())).await;
    }
    let mut reader = process.read(&wanted).await;
    let mut out = Vec::new();
    for _ in 0..3 {
        out.push(reader.next().await.1);
    }
    reader.expect_quiet().await;
    out.pop().expect("three are out").done().await?;
    assert_eq!(text(&reader.next().await.0), "3");
    reader.expect_quiet().await;
    Ok(())
}

async fn a_lost_connection_hands_out_again_what_was_not_settled(world: Arc<World>) -> Outcome {
    let process = world.process("1").await;
    let mut reader = process.read(&subscription("t", "g")).await;
    for body in ["1", "2", "3"] {
        process.publish(message("t", body)).await;
    }
    let (_, first) = reader.next().await;
    let (_, second) = reader.next().await;
    let (_, third) = reader.next().await;
    world.until_out("g.t", 3).await;
    assert_eq!(second.done().await?, Settled::Yes);
    // A cut connection takes back an acknowledgement that the server has not taken yet.
    world.until_out("g.t", 2).await;
    world.disconnect(&process).await;
    until("what was out is stale", || !first.is_current()).await;
    assert_eq!(first.done().await?, Settled::Stale);
    for body in ["1", "3"] {
        let (again, settlement) = reader.next().await;
        assert_eq!((text(&again).as_str(), again.redelivered), (body, true));
        assert_eq!(settlement.done().await?, Settled::Yes);
    }
    assert_eq!(third.done().await?, Settled::Stale);
    reader.expect_quiet().await;
    process.until_ready().await;
    process.publish(message("t", "4")).await;
    assert_eq!(reader.take().await, "4");
    Ok(())
}

async fn what_is_out_when_a_process_ends_goes_to_the_next(world: Arc<World>) -> Outcome {
    let wanted = subscription("t", "g");
    let one = world.process("1").await;
    let mut reader = one.read(&wanted).await;
    one.publish(message("t", "1")).await;
    let (_, out) = reader.next().await;
    let two = world.process("2").await;
    one.close().await;
    let mut next = two.read(&wanted).await;
    let (again, settlement) = next.next().await;
    assert_eq!((text(&again).as_str(), again.redelivered), ("1", true));
    settlement.done().await?;
    assert_eq!(out.done().await?, Settled::Stale);
    Ok(())
}

async fn a_paused_consumer_fetches_nothing_until_it_resumes(world: Arc<World>) -> Outcome {
    let process = world.process("1").await;
    let mut reader = process.read(&subscription("t", "g")).await;
    process.publish(message("t", "1")).await;
    let (_, out) = reader.next().await;
    reader.consumer.pause().await;
    assert_eq!(reader.consumer.state(), ConsumerState::Paused);
    process.publish(message("t", "2")).await;
    reader.expect_quiet().await;
    assert_eq!(out.done().await?, Settled::Yes, "what is out stays out");
    reader.consumer.resume().await;
    reader.until_state(&ConsumerState::Running).await;
    assert_eq!(reader.take().await, "2");
    Ok(())
}

async fn a_trickle_has_so_many_out_and_no_more(world: Arc<World>) -> Outcome {
    let process = world.process("1").await;
    let mut reader = process.read(&subscription("t", "g")).await;
    reader.consumer.pause().await;
    for number in 1..=6 {
        process.publish(message("t", &number.to_string())).await;
    }
    let mut came = Vec::new();
    for _ in 0..2 {
        reader.consumer.trickle(1).await;
        let (first, out) = reader.next().await;
        reader.expect_quiet().await;
        assert_eq!(out.done().await?, Settled::Yes);
        // In its place comes another, and no more; a pause leaves it out.
        let (second, out) = reader.next().await;
        reader.consumer.pause().await;
        assert_eq!(out.done().await?, Settled::Yes);
        reader.expect_quiet().await;
        came.extend([first, second]);
    }
    reader.consumer.resume().await;
    for _ in 0..2 {
        let (incoming, out) = reader.next().await;
        assert_eq!(out.done().await?, Settled::Yes);
        came.push(incoming);
    }
    // None was fetched too early and given back: brokers count how often they hand a message out.
    let fresh = came.iter().all(|incoming| !incoming.redelivered);
    let mut texts: Vec<_> = came.iter().map(|incoming| text(incoming)).collect();
    texts.sort();
    assert_eq!((texts.join(" ").as_str(), fresh), ("1 2 3 4 5 6", true));
    Ok(())
}

async fn a_stopped_consumer_leaves_the_rest_to_others(world: Arc<World>) -> Outcome {
    let wanted = subscription("t", "g");
    let process = world.process("1").await;
    let mut reader = process.read(&wanted).await;
    process.publish(message("t", "1")).await;
    let (_, out) = reader.next().await;
    reader.consumer.stop().await;
    assert_eq!(reader.consumer.state(), ConsumerState::Stopped);
    process.publish(message("t", "2")).await;
    reader.expect_quiet().await;
    assert_eq!(out.done().await?, Settled::Yes);
    let mut next = process.read(&wanted).await;
    assert_eq!(next.take().await, "2");
    next.expect_quiet().await;
    Ok(())
}

async fn one_instance_at_a_time_reads_what_is_ordered_by_key(world: Arc<World>) -> Outcome {
    let mut wanted = subscription("t", "g");
    wanted.ordered_by = Some(OrderedBy::Key);
    let (one, two) = (world.process("1").await, world.process("2").await);
    let mut first = one.read(&wanted).await;
    let mut second = two.read(&wanted).await;
    for body in ["1", "2", "3"] {
        let mut outgoing = message("t", body);
        outgoing.key = Some("k".into());
        one.publish(outgoing).await;
    }
    let (incoming, settlement) = first.next().await;
    assert_eq!(incoming.key.as_deref(), Some("k"));
    settlement.done().await?;
    assert_eq!(first.take().await, "2");
    second.expect_quiet().await;
    one.broker
        .disconnect(tokio::time::Instant::now() + LIMIT)
        .await;
    let (incoming, settlement) = second.next().await;
    assert_eq!(text(&incoming), "3");
    settlement.done().await?;
    Ok(())
}

async fn what_is_ordered_goes_to_the_next_reader_in_its_order(world: Arc<World>) -> Outcome {
    let mut wanted = subscription("t", "g");
    wanted.ordered_by = Some(OrderedBy::Key);
    wanted.prefetch = 5;
    let (one, two) = (world.process("1").await, world.process("2").await);
    let mut first = one.read(&wanted).await;
    let mut second = two.read(&wanted).await;
    let mut out = Vec::new();
    for body in ["1", "2", "3", "4", "5"] {
        let mut outgoing = message("t", body);
        outgoing.key = Some("k".into());
        one.publish(outgoing).await;
        let (incoming, settlement) = first.next().await;
        assert_eq!(text(&incoming), body);
        out.push(Some(settlement));
    }
    first.consumer.stop().await;
    assert_eq!(first.consumer.state(), ConsumerState::Stopped);
    for body in ["6", "7", "8"] {
        let mut outgoing = message("t", body);
        outgoing.key = Some("k".into());
        one.publish(outgoing).await;
    }
    second.expect_quiet().await;
    let done = out[0].take().expect("it is out").done().await?;
    assert_eq!(done, Settled::Yes);
    // In whichever order they are given back.
    for at in [4, 2, 3] {
        out[at].take().expect("it is out").release().await?;
    }
    second.expect_quiet().await;
    out[1].take().expect("it is out").release().await?;
    let rest = second.take_all(7).await;
    assert_eq!(rest, ["2", "3", "4", "5", "6", "7", "8"]);
    second.expect_quiet().await;
    Ok(())
}

async fn a_paused_reader_of_what_is_ordered_is_not_passed(world: Arc<World>) -> Outcome {
    let mut wanted = subscription("t", "g");
    wanted.ordered_by = Some(OrderedBy::Key);
    let (one, two) = (world.process("1").await, world.process("2").await);
    let mut first = one.read(&wanted).await;
    let mut second = two.read(&wanted).await;
    let keyed = |body| {
        let mut outgoing = message("t", body);
        outgoing.key = Some("k".into());
        outgoing
    };
    one.publish(keyed("1")).await;
    let (_, out) = first.next().await;
    first.consumer.pause().await;
    for body in ["2", "3"] {
        one.publish(keyed(body)).await;
    }
    first.expect_quiet().await;
    second.expect_quiet().await;
    assert_eq!(out.done().await?, Settled::Yes);
    first.consumer.resume().await;
    first.until_state(&ConsumerState::Running).await;
    // Whoever reads on, reads on in order.
    for body in ["2", "3"] {
        let (incoming, settlement) = tokio::select! {
            delivery = first.next() => delivery,
            delivery = second.next() => delivery,
        };
        assert_eq!(text(&incoming), body);
        settlement.done().await?;
    }
    Ok(())
}
