//! Groups and the keys around them: made, lost, foreign, of one instance.

use std::time::Duration;

use interline::message::TopicPattern;
use interline::message::headers::name;
use interline::messaging::{
    ConsumerState, Group, MessageBroker, Start, Subscription, TopologyMode,
};
use interline::testing::ServerFixture;
use redis::streams::StreamRangeReply;
use tokio::time::{Instant, sleep};

use crate::cases;
use crate::support::{
    Error, Inbox, LIMIT, Outcome, Stage, apply, eventually, message, numbers, publish, subscription,
};

cases![
    a_group_that_was_lost_while_nobody_ran_skips_nothing,
    a_key_of_another_type_is_told,
    a_lost_group_is_made_again_and_skips_nothing,
    a_stream_and_a_group_of_ones_own_are_used,
    all_keys_of_a_subscription_lie_in_one_slot,
    the_group_of_an_instance_that_is_gone_goes_too,
    verify_tells_the_command_that_makes_the_group,
];

async fn a_lost_group_is_made_again_and_skips_nothing() -> Outcome {
    for lose in [
        &["XGROUP", "DESTROY", "t", "billing"][..],
        &["DEL", "t"],
        &["DEL", "{t}:billing:retry"],
        &["FLUSHDB"],
    ] {
        let stage = Stage::new().await?;
        let mut inbox = Inbox::open(&stage.broker, subscription("t")).await?;
        stage.broker.publish(message("t", "before")).await?;
        assert_eq!(inbox.take().await, "before");
        stage.database.command(lose).await?;
        // Whoever publishes does not wait for the group.
        let mut after = message("t", "after");
        after.subscribers_optional = true;
        stage.broker.publish(after).await?;
        let mut came = inbox.take().await;
        if came == "before" {
            // How far the group was is noted now and then.
            came = inbox.take().await;
        }
        assert_eq!(came, "after", "{lose:?}");
        inbox.until(|state| *state == ConsumerState::Running).await;
        stage.end().await?;
    }
    Ok(())
}

async fn a_group_that_was_lost_while_nobody_ran_skips_nothing() -> Outcome {
    let stage = Stage::new().await?;
    let wanted = subscription("t");
    let mut inbox = Inbox::open(&stage.broker, wanted.clone()).await?;
    publish(&stage.broker, numbers(0..20)).await?;
    inbox.take_all(20).await;
    // The position is noted every two seconds or so.
    let last = stage
        .database
        .command(&["XREVRANGE", "t", "+", "-", "COUNT", "1"])
        .await?;
    let last: StreamRangeReply = redis::from_redis_value(last)?;
    let last = redis::Value::BulkString(last.ids[0].id.clone().into_bytes());
    let noted = async || {
        let at = stage
            .database
            .command(&["HGET", "{t}:billing:state", "id"])
            .await;
        at.is_ok_and(|at| at == last)
    };
    eventually(noted, || "the position was never noted".to_owned()).await;
    stage.broker.disconnect(Instant::now() + LIMIT).await;
    stage
        .database
        .command(&["XGROUP", "DESTROY", "t", "billing"])
        .await?;
    for body in ["later", "latest"] {
        let add = ["XADD", "t", "*", "payload", body];
        stage.database.command(&add).await?;
    }
    let again = stage.another("two", |config| config).await?;
    let mut inbox = Inbox::open(&again, wanted).await?;
    assert_eq!(inbox.take_all(2).await, ["later", "latest"]);
    inbox.expect_quiet().await;
    again.disconnect(Instant::now() + LIMIT).await;
    stage.database.delete().await?;
    Ok(())
}

async fn a_stream_and_a_group_of_ones_own_are_used() -> Outcome {
    let stage = Stage::new().await?;
    stage
        .database
        .command(&["XGROUP", "CREATE", "legacy:orders", "old", "$", "MKSTREAM"])
        .await?;
    let mut wanted = subscription("orders.placed");
    wanted.redis.stream = Some("legacy:orders".to_owned());
    wanted.redis.group = Some("old".to_owned());
    let mut inbox = Inbox::open(&stage.broker, wanted.clone()).await?;
    stage
        .database
        .command(&["XADD", "legacy:orders", "*", "payload", "theirs"])
        .await?;
    assert_eq!(inbox.take().await, "theirs");
    let mut ours = message("orders.placed", "ours");
    ours.redis.stream = Some("legacy:orders".into());
    stage.broker.publish(ours).await?;
    let (incoming, settlement) = inbox.next().await;
    assert_eq!(&*incoming.topic, "orders.placed");
    let headers = incoming.headers.clone();
    settlement.dead_letter(incoming, headers).await?;
    assert_eq!(
        stage
            .database
            .number(&["XLEN", "{legacy:orders}:old:dlq"])
            .await?,
        1
    );
    let groups = stage
        .database
        .command(&["XINFO", "GROUPS", "legacy:orders"])
        .await?;
    assert!(format!("{groups:?}").contains("old"), "{groups:?}");
    assert_eq!(
        stage.database.number(&["EXISTS", "orders.placed"]).await?,
        0
    );
    stage.end().await
}

async fn verify_tells_the_command_that_makes_the_group() -> Outcome {
    let stage = Stage::new().await?;
    let mut wanted = subscription("t");
    wanted.topology = TopologyMode::Verify;
    for make in [
        "XGROUP CREATE t billing $ MKSTREAM",
        "XGROUP CREATE {t}:billing:retry billing 0 MKSTREAM",
    ] {
        let error = apply(&stage.broker, &wanted)
            .await
            .expect_err("it is missing");
        assert!(error.to_string().contains(make), "{error}");
        let words: Vec<_> = make.split(' ').collect();
        stage.database.command(&words).await?;
    }
    apply(&stage.broker, &wanted).await?;
    let mut inbox = Inbox::open(&stage.broker, wanted).await?;
    stage.broker.publish(message("t", "1")).await?;
    assert_eq!(inbox.take().await, "1");
    stage.end().await
}

async fn a_key_of_another_type_is_told() -> Outcome {
    let stage = Stage::new().await?;
    stage.database.command(&["SET", "t", "text"]).await?;
    let error = apply(&stage.broker, &subscription("t"))
        .await
        .expect_err("no stream");
    let text = error.to_string();
    assert!(
        text.contains("stream `t`") && text.contains("WRONGTYPE"),
        "{text}"
    );
    let error = stage
        .broker
        .publish(message("t", "1"))
        .await
        .expect_err("no stream");
    assert!(
        error.to_string().contains("something else than a stream"),
        "{error}"
    );
    stage.end().await
}

fn each(instance: &str) -> Subscription {
    let group = Group::EachInstance {
        service: "billing".into(),
        instance: instance.into(),
        subscriber: "refresh".into(),
    };
    Subscription::new(TopicPattern::parse("t").expect("a valid topic"), group)
}

async fn the_group_of_an_instance_that_is_gone_goes_too() -> Outcome {
    let short = |config: interline::Config| config.with("brokers.main.instance_timeout", "2s");
    let stage = Stage::with(short).await?;
    // An instance that died long ago.
    let dead = "billing.refresh.dead";
    stage
        .database
        .command(&["XGROUP", "CREATE", "t", dead, "$", "MKSTREAM"])
        .await?;
    stage
        .database
        .command(&["ZADD", "{t}:billing.refresh:instances", "1000", dead])
        .await?;
    stage
        .database
        .command(&["XADD", &format!("{{t}}:{dead}:retry"), "*", "payload", "x"])
        .await?;
    let mut inbox = Inbox::open(&stage.broker, each("one")).await?;
    let count = async || -> Result<i64, Error> {
        let groups = stage.database.command(&["XINFO", "GROUPS", "t"]).await?;
        Ok(i64::try_from(
            format!("{groups:?}").matches("billing.refresh.").count(),
        )?)
    };
    eventually(
        async || matches!(count().await, Ok(1)),
        || "its group is still there".to_owned(),
    )
    .await;
    let left = stage
        .database
        .number(&["EXISTS", &format!("{{t}}:{dead}:retry")])
        .await?;
    assert_eq!(left, 0);
    // A living one keeps its own for longer than that, and misses nothing.
    sleep(Duration::from_secs(3)).await;
    stage.broker.publish(message("t", "1")).await?;
    assert_eq!(inbox.take().await, "1");
    stage.broker.disconnect(Instant::now() + LIMIT).await;
    assert_eq!(count().await?, 0);
    stage.database.delete().await?;
    Ok(())
}

/// A member of a cluster refuses a script whose keys lie in different slots.
async fn all_keys_of_a_subscription_lie_in_one_slot() -> Outcome {
    let server = ServerFixture::redis()
        .config_line("cluster-enabled yes")
        .start()
        .await?;
    let stage = Stage::on(&server, |config| config).await?;
    let slots = ["CLUSTER", "ADDSLOTSRANGE", "0", "16383"];
    stage.database.command(&slots).await?;
    let ready = async || {
        let info = stage.database.command(&["CLUSTER", "INFO"]).await;
        format!("{info:?}").contains("cluster_state:ok")
    };
    eventually(ready, || "the cluster is never ready".to_owned()).await;
    let mut ordered = subscription("orders.placed");
    ordered.ordered_by = Some(interline::messaging::OrderedBy::Key);
    ordered.start = Start::Earliest;
    for wanted in [subscription("t"), ordered, each("one")] {
        let topic = wanted.topic.as_str().to_owned();
        let mut inbox = Inbox::open(&stage.broker, wanted.clone()).await?;
        stage.broker.publish(message(&topic, "1")).await?;
        let (incoming, settlement) = inbox.next().await;
        settlement.release().await?;
        drop(incoming);
        let (incoming, settlement) = inbox.next().await;
        let headers = incoming.headers.clone();
        settlement
            .retry(incoming, Duration::from_secs(1), headers)
            .await?;
        let (incoming, settlement) = inbox.next().await;
        let mut headers = incoming.headers.clone();
        headers.set(name::DLQ_REASON, "rejected");
        settlement.dead_letter(incoming, headers).await?;
        let store = stage.broker.dead_letters().expect("they are kept");
        let again = |letter: &interline::message::Incoming| Some(letter.headers.clone());
        assert_eq!(store.redrive(&wanted, 1, &again).await?, 1);
        assert_eq!(inbox.take().await, "1");
        inbox.consumer.stop().await;
    }
    stage.broker.disconnect(Instant::now() + LIMIT).await;
    Ok(())
}
