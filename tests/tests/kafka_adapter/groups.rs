//! Groups: members that come and go, static ones, the protocol of Kafka 4, first positions, patterns.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use interline::config::Config;
use interline::messaging::{ConsumerState, MessageBroker, Settled, Start};
use interline::observability::metrics::PARTITIONS_LOST;
use interline_tests::harness::Case;
use interline_tests::kafka_shares;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::support::{
    Inbox, LIMIT, Outcome, Stage, close, eventually, message, partition, publish, subscription,
    text,
};

pub fn cases() -> Vec<Case> {
    vec![
        Case::new("a_partition_that_moves_takes_nothing_with_it", async || {
            moves(Stage::new().await?).await
        }),
        Case::new(
            "a_partition_that_moves_takes_nothing_with_it_new_protocol",
            async || moves(Stage::of_new_protocol().await?).await,
        ),
        Case::new(
            "what_is_settled_while_a_partition_moves_stays_settled",
            settled_while_it_moves,
        ),
        Case::new("a_paused_partition_that_comes_back_is_read", async || {
            comes_back(Stage::new().await?).await
        }),
        Case::new(
            "a_paused_partition_that_comes_back_is_read_new_protocol",
            async || comes_back(Stage::of_new_protocol().await?).await,
        ),
        Case::new(
            "a_static_member_comes_back_without_a_rebalance",
            static_member,
        ),
        Case::new("the_protocol_of_kafka_4_is_spoken", new_protocol),
        Case::new(
            "a_group_that_runs_begins_a_new_subscription_now",
            begins_in_a_running_group,
        ),
        Case::new("an_expression_over_topics_is_read", expression),
        Case::new("a_group_of_ones_own_is_used", own_group),
    ]
}

/// Members join and leave every second while messages come: nothing is lost, and what comes twice is
/// at most what was out.
async fn moves(stage: Stage) -> Outcome {
    const ROUNDS: usize = 6;
    let one = stage.connected("one").await?;
    let wanted = || {
        let mut wanted = subscription("t");
        wanted.kafka.partitions = Some(4);
        wanted.prefetch = 8;
        wanted
    };
    let mut steady = Inbox::open(&one, wanted()).await?;
    let (mut sent, mut came, mut repeated) = (BTreeSet::new(), BTreeSet::new(), 0);
    let mut number = 0;
    for round in 0..ROUNDS {
        let other = stage.connected(&format!("other-{round}")).await?;
        let mut visitor = Inbox::open(&other, wanted()).await?;
        let end = Instant::now() + Duration::from_secs(1);
        while Instant::now() < end {
            let body = number.to_string();
            let mut outgoing = message("t", &body);
            outgoing.key = Some(format!("k{}", number % 16));
            publish(&one, outgoing).await;
            sent.insert(body);
            number += 1;
            for inbox in [&mut steady, &mut visitor] {
                while let Ok(delivery) = inbox.deliveries.try_recv() {
                    let body = text(&delivery.incoming);
                    if delivery.settlement.done().await? == Settled::Yes && !came.insert(body) {
                        repeated += 1;
                    }
                }
            }
        }
        // It goes with what it has.
        close(&other).await;
    }
    let deadline = Instant::now() + LIMIT;
    while came.len() < sent.len() {
        assert!(
            Instant::now() < deadline,
            "{} of {}",
            came.len(),
            sent.len()
        );
        while let Ok(delivery) = steady.deliveries.try_recv() {
            let body = text(&delivery.incoming);
            if delivery.settlement.done().await? == Settled::Yes && !came.insert(body) {
                repeated += 1;
            }
        }
        sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(came, sent);
    let most = 2 * ROUNDS * 8;
    assert!(repeated <= most, "{repeated} came twice, {most} at most");
    close(&one).await;
    Ok(())
}

/// What became of messages whose numbers are their bodies.
#[derive(Default)]
struct Account {
    settled: BTreeSet<String>,
    /// Settled, and then handed out once more.
    again: Vec<String>,
}

/// Settles what comes and gives some of it back, until nothing can come any more; in no hurry until `hurry`.
async fn settle(
    inbox: Inbox,
    account: Arc<Mutex<Account>>,
    seed: u64,
    hurry: watch::Receiver<bool>,
) -> Outcome {
    let mut random = fastrand::Rng::with_seed(seed);
    let Inbox {
        consumer,
        mut deliveries,
    } = inbox;
    // It would keep the other end of the channel.
    drop(consumer);
    while let Some(delivery) = deliveries.recv().await {
        if !*hurry.borrow() {
            sleep(Duration::from_millis(1)).await;
        }
        if random.u8(..10) < 3 {
            delivery.settlement.release().await?;
            continue;
        }
        let body = text(&delivery.incoming);
        let settled = delivery.settlement.done().await?;
        let mut account = account.lock().expect("nobody panics with it");
        if settled == Settled::Yes && !account.settled.insert(body.clone()) {
            account.again.push(body);
        }
    }
    Ok(())
}

/// A partition is given up in order while its messages are settled and given back: what was settled by then was
/// also committed.
async fn settled_while_it_moves() -> Outcome {
    const ROUNDS: usize = 6;
    let seed = fastrand::u64(..);
    println!("INTERLINE_TEST_SEED={seed}");
    let stage = Stage::new().await?;
    let change = |config: Config| {
        config
            // A member that is late would lose what it has.
            .with("brokers.main.session_timeout", Duration::from_secs(6))
            // More is out than can be settled in this time: it is given up between two settlements.
            .with("brokers.main.revoke_wait", Duration::from_millis(100))
    };
    let wanted = || {
        let mut wanted = subscription("t");
        wanted.kafka.partitions = Some(4);
        wanted.prefetch = 500;
        wanted
    };
    let account = Arc::new(Mutex::new(Account::default()));
    let (stop, stopped) = watch::channel(false);
    let settling = |inbox, seed| {
        let settling = settle(inbox, Arc::clone(&account), seed, stopped.clone());
        tokio::spawn(settling)
    };
    let one = stage.connected_with("one", change).await?;
    let steady = settling(Inbox::open(&one, wanted()).await?, seed);
    let (publisher, until) = (Arc::clone(&one), stopped.clone());
    let publishing = tokio::spawn(async move {
        let mut number = 0;
        while !*until.borrow() {
            let mut outgoing = message("t", &number.to_string());
            outgoing.key = Some(format!("k{}", number % 16));
            publish(&publisher, outgoing).await;
            number += 1;
        }
        number
    });
    let group = stage.named("billing");
    for round in 0..ROUNDS {
        let other = stage
            .connected_with(&format!("other-{round}"), change)
            .await?;
        let visitor = Inbox::open(&other, wanted()).await?;
        let visitor = settling(visitor, seed.wrapping_add(u64::try_from(round)? + 1));
        kafka_shares::until_shared(&stage.url, &group, 2, LIMIT).await?;
        close(&other).await;
        drop(other);
        visitor.await??;
        kafka_shares::until_shared(&stage.url, &group, 1, LIMIT).await?;
    }
    stop.send_replace(true);
    let sent = publishing.await?;
    let settled = || {
        let account = account.lock().expect("nobody panics with it");
        account.settled.len()
    };
    eventually(
        || settled() == sent,
        || format!("{} of {sent} settled", settled()),
    )
    .await;
    close(&one).await;
    drop(one);
    steady.await??;
    let again = &account.lock().expect("nobody panics with it").again;
    let lost = stage.metrics.count(PARTITIONS_LOST, &[]);
    assert!(again.is_empty() || lost > 0, "{again:?}");
    Ok(())
}

async fn static_member() -> Outcome {
    let stage = Stage::new().await?;
    let named = |id: &'static str| {
        move |config: Config| {
            config
                .with("brokers.main.instance_id", id)
                .with("brokers.main.session_timeout", Duration::from_secs(20))
        }
    };
    let wanted = || {
        let mut wanted = subscription("t");
        wanted.kafka.partitions = Some(2);
        wanted
    };
    let one = stage.connected_with("one", named("a")).await?;
    let mut first = Inbox::open(&one, wanted()).await?;
    let two = stage.connected_with("two", named("b")).await?;
    let mut second = Inbox::open(&two, wanted()).await?;
    kafka_shares::until_shared(&stage.url, &stage.named("billing"), 2, LIMIT).await?;
    // `order-1` and `order-2` go to the two partitions.
    for key in ["order-1", "order-2"] {
        let mut outgoing = message("t", key);
        outgoing.key = Some(key.to_owned());
        publish(&one, outgoing).await;
    }
    let held = first.next().await;
    let other = second.next().await;
    let (ours, theirs) = (partition(&held.incoming), partition(&other.incoming));
    assert_ne!(ours, theirs);
    let body = text(&other.incoming);
    other.settlement.done().await?;
    close(&two).await;
    // The same member again, soon enough.
    let again = stage.connected_with("two-b", named("b")).await?;
    let mut second = Inbox::open(&again, wanted()).await?;
    let mut outgoing = message("t", &format!("{body}-again"));
    outgoing.key = Some(body);
    publish(&one, outgoing).await;
    assert_eq!(partition(&second.take().await), theirs);
    assert!(
        held.settlement.is_current(),
        "the partitions were shared out anew"
    );
    assert_eq!(held.settlement.done().await?, Settled::Yes);
    close(&again).await;
    close(&one).await;
    Ok(())
}

async fn new_protocol() -> Outcome {
    let stage = Stage::new().await?;
    let change = |config: Config| {
        let mut plain = Config::new();
        let _ = config;
        plain = plain
            .with("brokers.main.url", stage.url.as_str())
            .with("brokers.main.partitions", 2)
            .with("brokers.main.group_protocol", "consumer");
        plain
    };
    let one = stage.connected_with("one", change).await?;
    let mut inbox = Inbox::open(&one, subscription("t")).await?;
    for number in 0..10 {
        let mut outgoing = message("t", &number.to_string());
        outgoing.key = Some(number.to_string());
        publish(&one, outgoing).await;
    }
    let mut came = BTreeSet::new();
    for _ in 0..10 {
        came.insert(text(&inbox.take().await));
    }
    assert_eq!(came.len(), 10);
    close(&one).await;
    let two = stage.connected_with("two", change).await?;
    let mut inbox = Inbox::open(&two, subscription("t")).await?;
    inbox.expect_quiet(Duration::from_secs(1)).await;
    publish(&two, message("t", "last")).await;
    assert_eq!(text(&inbox.take().await), "last");
    close(&two).await;
    Ok(())
}

async fn begins_in_a_running_group() -> Outcome {
    let stage = Stage::new().await?;
    let one = stage.connected("one").await?;
    let mut old = Inbox::open(&one, subscription("old")).await?;
    for topic in ["new", "earliest"] {
        let mut before = message(topic, "before");
        before.subscribers_optional = true;
        publish(&one, before).await;
    }
    let two = stage.connected("two").await?;
    let mut new = Inbox::open(&two, subscription("new")).await?;
    let mut wanted = subscription("earliest");
    wanted.start = Start::Earliest;
    let mut earliest = Inbox::open(&two, wanted).await?;
    publish(&one, message("new", "after")).await;
    assert_eq!(text(&new.take().await), "after");
    assert_eq!(text(&earliest.take().await), "before");
    publish(&one, message("old", "still")).await;
    assert_eq!(text(&old.take().await), "still");
    close(&two).await;
    close(&one).await;
    Ok(())
}

async fn expression() -> Outcome {
    let stage = Stage::new().await?;
    let broker = stage.connected("one").await?;
    // The last two belong to services, whose replies and dead letters nobody means by a pattern.
    let (replies, dead) = ("audit-eu.replies", "audit-eu.mail.dlq");
    for topic in ["audit-eu", "audit-us", "other", replies, dead] {
        let mut outgoing = message(topic, "before");
        outgoing.subscribers_optional = true;
        publish(&broker, outgoing).await;
    }
    let mut wanted = subscription("audit");
    let prefix = stage.prefix.replace('.', "\\.");
    wanted.kafka.pattern = Some(format!("^{prefix}audit-[a-z.]+$"));
    let mut inbox = Inbox::open(&broker, wanted).await?;
    for topic in [replies, dead, "other", "audit-eu", "audit-us", "audit-new"] {
        let mut outgoing = message(topic, "after");
        outgoing.subscribers_optional = true;
        publish(&broker, outgoing).await;
    }
    let mut came = BTreeSet::new();
    for _ in 0..3 {
        let incoming = inbox.take().await;
        assert_eq!(text(&incoming), "after");
        came.insert(incoming.topic.to_string());
    }
    let expected = ["audit-eu", "audit-us", "audit-new"].map(str::to_owned);
    assert_eq!(came, BTreeSet::from(expected));
    inbox.expect_quiet(Duration::from_millis(500)).await;
    close(&broker).await;
    Ok(())
}

async fn own_group() -> Outcome {
    let stage = Stage::new().await?;
    let group = stage.named("legacy-group");
    let broker = stage.connected("one").await?;
    let mut wanted = subscription("t");
    wanted.kafka.group_id = Some(group.clone());
    let mut inbox = Inbox::open(&broker, wanted).await?;
    publish(&broker, message("t", "1")).await;
    inbox.take().await;
    let topology = broker.topology(&[Arc::new({
        let mut wanted = subscription("t");
        wanted.kafka.group_id = Some(group.clone());
        wanted
    })]);
    let named = topology
        .parts
        .iter()
        .any(|part| part.kind == "group" && part.name == group);
    assert!(named, "{topology:?}");
    close(&broker).await;
    Ok(())
}

/// It is paused when it goes to somebody else, and nothing is any more when it comes back.
async fn comes_back(stage: Stage) -> Outcome {
    let two_partitions = |config: Config| config.with("brokers.main.partitions", 2);
    let one = stage.connected_with("one", two_partitions).await?;
    let mut first = Inbox::open(&one, subscription("t")).await?;
    first.consumer.pause().await;
    first.until(|state| *state == ConsumerState::Paused).await;
    let other = stage.connected_with("two", two_partitions).await?;
    let mut second = Inbox::open(&other, subscription("t")).await?;
    let keyed = |number: u32| {
        let mut outgoing = message("t", &number.to_string());
        outgoing.key = Some(format!("k{number}"));
        outgoing
    };
    // Until one comes, the partitions have not moved.
    let mut sent = 0;
    loop {
        publish(&one, keyed(sent)).await;
        sent += 1;
        let came = tokio::time::timeout(Duration::from_millis(200), second.deliveries.recv()).await;
        if let Ok(Some(delivery)) = came {
            delivery.settlement.done().await?;
            break;
        }
    }
    first.consumer.resume().await;
    close(&other).await;
    // Both partitions are read again: of as many keys, some are in each.
    let begun = sent;
    for _ in 0..20 {
        publish(&one, keyed(sent)).await;
        sent += 1;
    }
    let mut seen = BTreeSet::new();
    while !(begun..sent).all(|number| seen.contains(&number)) {
        seen.insert(text(&first.take().await).parse::<u32>()?);
    }
    close(&one).await;
    Ok(())
}
